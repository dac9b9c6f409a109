"""The published ViTs, as fields of `ViT`.

Names are timm's; `dinov2_vit*14` are the publisher's own, with its own resizing of
positions. A name with a dot is one set of weights whose head or normalisation differs
from the plain name's.
"""

from __future__ import annotations

from typing import Any

from robustvit.models.statistics import CLIP, HALF, IMAGENET

_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"dim": 192, "depth": 12, "num_heads": 3},
    "small": {"dim": 384, "depth": 12, "num_heads": 6},
    "medium": {"dim": 512, "depth": 12, "num_heads": 8},
    "base": {"dim": 768, "depth": 12, "num_heads": 12},
    "large": {"dim": 1024, "depth": 24, "num_heads": 16},
    "huge": {"dim": 1280, "depth": 32, "num_heads": 16},
    "giant": {"dim": 1536, "depth": 40, "num_heads": 24, "mlp": "swiglu"},
}
_DEIT3 = {**IMAGENET, "cls_position": False, "layer_scale": 1e-6}
_DINOV2 = {
    **IMAGENET,
    "num_classes": 0,
    "patch_size": 14,
    "image_size": 518,
    "layer_scale": 1e-5,
}
_REGISTERS = {**_DINOV2, "num_registers": 4, "cls_position": False}
_CLIP = {**CLIP, "norm_pre": True, "norm_eps": 1e-5}  # torch's default epsilon

# (size, patch, image)
_PLAIN = [
    *((size, 16, image) for size in ("tiny", "small", "base", "large")
      for image in (224, 384)),
    ("base", 8, 224), ("small", 32, 224), ("base", 32, 224),
]  # fmt: skip
_DEIT = [("tiny", 16, 224), ("small", 16, 224), ("base", 16, 224), ("base", 16, 384)]
_UNCHANGED = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
_CVST = [("small", 16, 224), ("medium", 16, 224), ("base", 16, 224)]
_DEIT3_SIZES = [
    ("small", 16, 224), ("small", 16, 384), ("medium", 16, 224), ("base", 16, 224),
    ("base", 16, 384), ("large", 16, 224), ("large", 16, 384), ("huge", 14, 224),
]  # fmt: skip
_CLIP_SIZES = [
    ("base", 32, 224), ("base", 16, 224), ("large", 14, 224), ("large", 14, 336),
    ("huge", 14, 224),
]  # fmt: skip


def _family(pattern: str, shapes, **fields) -> dict[str, dict[str, Any]]:
    return {
        pattern.format(size=size, patch=patch, image=image): {
            **_SIZES[size],
            "patch_size": patch,
            "image_size": image,
            **fields,
        }
        for size, patch, image in shapes
    }


def _dinov2(pattern: str, fields, **more) -> dict[str, dict[str, Any]]:
    return {
        pattern.format(size=size, letter=size[0]): {**_SIZES[size], **fields, **more}
        for size in ("small", "base", "large", "giant")
    }


VARIANTS: dict[str, dict[str, Any]] = {
    **_family("vit_{size}_patch{patch}_{image}", _PLAIN, **HALF),
    **_family("deit_{size}_patch{patch}_{image}", _DEIT, **IMAGENET),
    # Their authors train on [0, 1] as it is.
    **_family("vit_{size}_cvst", _CVST, stem_widths=(48, 96, 192, 384), **_UNCHANGED),
    **_family("deit3_{size}_patch{patch}_{image}", _DEIT3_SIZES, **_DEIT3),
    **_family("vit_{size}_patch{patch}_clip_{image}", _CLIP_SIZES, **_CLIP),
    **_family(
        "vit_{size}_patch{patch}_clip_quickgelu_{image}",
        _CLIP_SIZES,
        **_CLIP,
        mlp="quick_gelu",
    ),
    **_dinov2("vit_{size}_patch14_dinov2", _DINOV2),
    **_dinov2("vit_{size}_patch14_reg4_dinov2", _REGISTERS),
    **_dinov2("dinov2_vit{letter}14", _DINOV2, position_resize="dinov2"),
    **_dinov2("dinov2_vit{letter}14_reg", _REGISTERS),
}
VARIANTS["vit_medium_cvst"] |= {"cls_position": False, "layer_scale": 1e-6}
for _name, _fields in {  # OpenAI's and OpenCLIP's own heads: the joint embedding
    "vit_base_patch32_clip_quickgelu_224": {"num_classes": 512},
    "vit_base_patch16_clip_quickgelu_224": {"num_classes": 512},
    "vit_large_patch14_clip_quickgelu_224": {"num_classes": 768},
    "vit_large_patch14_clip_quickgelu_336": {"num_classes": 768},
    "vit_huge_patch14_clip_quickgelu_224": {"num_classes": 1024},
    "vit_large_patch14_clip_224": HALF,
    "vit_large_patch14_clip_336": HALF,
}.items():
    VARIANTS[_name] = {**VARIANTS[_name], **_fields}
VARIANTS |= {
    name: {**VARIANTS[name.split(".")[0]], **fields}
    for name, fields in {
        "vit_base_patch16_224.augreg_in21k_ft_in1k": {},
        "vit_base_patch16_224.augreg_in21k": {"num_classes": 21843},
        "vit_base_patch16_224.orig_in21k": {"num_classes": 0},
        "vit_base_patch16_224.mae": {"num_classes": 0, **IMAGENET},
        "vit_base_patch32_clip_224.laion2b": {"num_classes": 512},
        "vit_base_patch16_clip_224.laion2b": {"num_classes": 512},
        "vit_large_patch14_clip_224.laion2b": {"num_classes": 768},
        "vit_huge_patch14_clip_224.laion2b": {"num_classes": 1024},
    }.items()
}
