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
from robustvit.models import cait, vit_variants, xcit
from robustvit.models.cait import CaiT
from robustvit.models.vit import ViT
from robustvit.models.xcit import XCiT

_FAMILIES: list[tuple[type[nn.Module], dict[str, dict[str, Any]]]] = [
    (XCiT, xcit.VARIANTS),
    (ViT, vit_variants.VARIANTS),
    (CaiT, cait.VARIANTS),
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    name: partial(family, **fields)
    for family, variants in _FAMILIES
    for name, fields in variants.items()
}


def create_model(name: str, /, **overrides: Any) -> Any:
    """Build the named variant; `overrides` replace fields of its module.

    Raises:
      ValueError: for a name that is not in MODELS, or a field its module has not.
    """
    return lookup.build("model", MODELS, name, **overrides)


__all__ = ["MODELS", "CaiT", "ViT", "XCiT", "create_model"]
