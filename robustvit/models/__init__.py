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
from robustvit.models import (
    cait,
    cifar_resnet,
    convnext,
    poolformer,
    preact_resnet,
    resnet,
    swin,
    vit_variants,
    wide_resnet,
    xcit_variants,
)
from robustvit.models.cait import CaiT
from robustvit.models.cifar_resnet import CifarResNet
from robustvit.models.convnext import ConvNeXt
from robustvit.models.poolformer import PoolFormer
from robustvit.models.preact_resnet import PreActResNet
from robustvit.models.resnet import ResNet
from robustvit.models.swin import Swin
from robustvit.models.vit import ViT
from robustvit.models.wide_resnet import WideResNet
from robustvit.models.xcit import XCiT

_FAMILIES: list[tuple[type[nn.Module], dict[str, dict[str, Any]]]] = [
    (XCiT, xcit_variants.VARIANTS),
    (ViT, vit_variants.VARIANTS),
    (CaiT, cait.VARIANTS),
    (ResNet, resnet.VARIANTS),
    (WideResNet, wide_resnet.VARIANTS),
    (PreActResNet, preact_resnet.VARIANTS),
    (CifarResNet, cifar_resnet.VARIANTS),
    (ConvNeXt, convnext.VARIANTS),
    (PoolFormer, poolformer.VARIANTS),
    (Swin, swin.VARIANTS),
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    name: partial(family, **fields)
    for family, variants in _FAMILIES
    for name, fields in variants.items()
}
ALIASES = {  # what the recipe's and the weights' authors call them
    "preact_resnet_18": "preact_resnet18",
    **{f"resnet{n}": f"cifar_resnet{n}" for n in (20, 32, 44, 56, 110)},
}
MODELS |= {alias: MODELS[name] for alias, name in ALIASES.items()}


def create_model(name: str, /, **overrides: Any) -> Any:
    """Build the named variant; `overrides` replace fields of its module.

    Raises:
      ValueError: for a name that is not in MODELS, or a field its module has not.
    """
    return lookup.build("model", MODELS, name, **overrides)


__all__ = [
    "MODELS",
    "CaiT",
    "CifarResNet",
    "ConvNeXt",
    "PoolFormer",
    "PreActResNet",
    "ResNet",
    "Swin",
    "ViT",
    "WideResNet",
    "XCiT",
    "create_model",
]
