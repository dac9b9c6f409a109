"""Model families, and the table of their published variants by name.

    model = create_model("xcit_small_12_p4_32", num_classes=10, drop_path=0.05)

Every entry of MODELS builds a `flax.linen` module that maps images (b, h, w, 3) in
[0, 1] to `Outputs`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn

from robustvit import lookup
from robustvit.models.xcit import XCiT

_XCIT_SIZES: dict[str, dict[str, Any]] = {
    "nano_12": {"dim": 128, "num_heads": 4, "tokens_norm": False},
    "tiny_12": {"dim": 192, "num_heads": 4},
    "small_12": {"dim": 384, "num_heads": 8},
    # The next three exist only in the Light Recipe's repository.
    "medium_12": {"dim": 512, "num_heads": 8},
    "large_12": {"dim": 768, "num_heads": 16},
    "large_12_h8": {"dim": 768, "num_heads": 8},
    "tiny_24": {"dim": 192, "num_heads": 4, "depth": 24, "eta": 1e-5},
    "small_24": {"dim": 384, "num_heads": 8, "depth": 24, "eta": 1e-5},
    "medium_24": {"dim": 512, "num_heads": 8, "depth": 24, "eta": 1e-5},
    "large_24": {"dim": 768, "num_heads": 16, "depth": 24, "eta": 1e-5},
}
_XCIT_STEMS: dict[str, tuple[int, ...]] = {
    "p16_224": (2, 2, 2, 2),
    "p8_224": (2, 2, 2),  # the publisher's own patch 8: one convolution fewer
    # The recipe's way to small images: the patch-16 weights at other strides.
    "p8_32": (1, 2, 2, 2),
    "p4_32": (1, 1, 2, 2),
}

MODELS: dict[str, Callable[..., nn.Module]] = {
    f"xcit_{size}_{stem}": partial(XCiT, **args, strides=strides)
    for size, args in _XCIT_SIZES.items()
    for stem, strides in _XCIT_STEMS.items()
}


def create_model(name: str, /, **overrides: Any) -> Any:
    """Build the named variant; `overrides` replace fields of its module.

    Raises:
      ValueError: for a name that is not in MODELS, or a field its module has not.
    """
    return lookup.build("model", MODELS, name, **overrides)


__all__ = ["MODELS", "XCiT", "create_model"]
