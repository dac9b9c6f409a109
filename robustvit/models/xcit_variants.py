"""The published XCiTs, as fields of `XCiT`.

The names of the Light Recipe's repository, and RobustBench's for its models.
"""

from __future__ import annotations

from typing import Any

_SIZES: dict[str, dict[str, Any]] = {
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
_STEMS: dict[str, tuple[int, ...]] = {
    "p16_224": (2, 2, 2, 2),
    "p8_224": (2, 2, 2),  # the publisher's own patch 8: one convolution fewer
    # The recipe's way to small images: the patch-16 weights at other strides.
    "p8_32": (1, 2, 2, 2),
    "p4_32": (1, 1, 2, 2),
    "p2_32": (1, 1, 1, 1),  # its name; what it does is patch 1
}

VARIANTS: dict[str, dict[str, Any]] = {
    f"xcit_{size}_{stem}": {**fields, "strides": strides}
    for size, fields in _SIZES.items()
    for stem, strides in _STEMS.items()
}
# RobustBench's names for the Light Recipe's published models.
VARIANTS |= {
    f"debenedetti2022light_xcit_{letter}12_{dataset}_linf": {
        **VARIANTS[f"xcit_{size}_12_{stem}"],
        "num_classes": num_classes,
    }
    for letter, size in (("s", "small"), ("m", "medium"), ("l", "large"))
    for dataset, stem, num_classes in (
        ("imagenet", "p16_224", 1000),
        ("cifar10", "p4_32", 10),
        ("cifar100", "p4_32", 100),
    )
}
