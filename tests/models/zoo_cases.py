"""Small networks of every family, and weights for them that are a formula of names.

Both sides of the golden tests import this: `tests/golden/make_zoo.py`, which runs the
torch references, and `tests/models/test_golden.py`, which runs ours. NumPy only.

A new family is a row per variant in CASES; one that timm does not have is also a torch
module in tests/golden/torch_references.py.
"""

import re
import zlib
from typing import Any, NamedTuple

import numpy as np

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Case(NamedTuple):
    """One network, as ours and as the reference's."""

    name: str
    family: str  # class of robustvit.models
    fields: dict[str, Any]  # of that class; mean and std are MEAN and STD
    reference: str  # a name of timm's, or one in torch_references.REFERENCES
    arguments: dict[str, Any]  # of that
    size: int = 32
    # Maps are 1x1 before the pooling of most: BatchNorm needs a few examples.
    batch: int = 8


def _resnet(name, fields, reference, arguments, size=32):
    fields = {"layers": (1, 1, 1, 1), "widths": (8, 16, 24, 32), **fields}
    arguments = {
        "layers": fields["layers"],
        "channels": fields["widths"],
        **arguments,
    }
    return Case(f"resnet_{name}", "ResNet", fields, reference, arguments, size)


def _swin(name, size, window, depths):
    shape = {"depths": depths, "num_heads": (2, 4, 4)[: len(depths)]}
    return Case(
        f"swin_{name}",
        "Swin",
        {**shape, "image_size": size, "window": window, "dim": 8},
        "swin_tiny_patch4_window7_224",
        {
            **shape,
            "img_size": size,
            "window_size": window,
            "embed_dim": 8,
            "drop_path_rate": 0.0,
        },
        size,
        batch=2,
    )


_TRANSFORMER = {"depth": 2, "num_heads": 2}


def _vit(name, reference, fields, *, family="ViT", dim=16, size=32, **arguments):
    """Patches of 8 on images of 32, which both sides are told."""
    shape = {**_TRANSFORMER, "patch_size": 8}
    return Case(
        f"{family.lower()}_{name}",
        family,
        {**shape, "dim": dim, "image_size": 32, **fields},
        reference,
        {**shape, "embed_dim": dim, "img_size": 32, **arguments},
        size,
        batch=2,
    )


def _xcit(name, reference, *, size=32, patch_size=16, **fields):
    return Case(
        f"xcit_{name}",
        "XCiT",
        {**_TRANSFORMER, "dim": 16, **fields},
        reference,
        {**_TRANSFORMER, "embed_dim": 16, "patch_size": patch_size},
        size,
    )


_BASIC = {"block": "basic"}
_CONVNEXT = {"depths": (1, 2, 1, 1), "widths": (8, 16, 24, 32)}
_CONVNEXT_TIMM = {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32)}

_SCALED = {"layer_scale": 1e-5}
_REGISTERS = {**_SCALED, "num_registers": 4, "cls_position": False}
_CLIP = {"norm_pre": True, "norm_eps": 1e-5}

CASES = (
    _xcit("nano", "xcit_nano_12_p16_224", tokens_norm=False, size=48),
    _xcit("tiny", "xcit_tiny_12_p16_224"),
    _xcit("patch8", "xcit_small_24_p8_224", strides=(2, 2, 2), eta=1e-5, patch_size=8),
    _vit("plain", "vit_tiny_patch16_224", {}),
    # Another size than the native: positions are resized.
    _vit("resized", "vit_tiny_patch16_224", {}, size=48, dynamic_img_size=True),
    _vit("deit3", "deit3_small_patch16_224", {**_SCALED, "cls_position": False}),
    _vit("dinov2", "vit_small_patch14_dinov2", _SCALED),
    _vit("registers", "vit_small_patch14_reg4_dinov2", _REGISTERS),
    _vit("registers_resized", "vit_small_patch14_reg4_dinov2", _REGISTERS, size=24,
         dynamic_img_size=True),
    _vit("swiglu", "vit_giant_patch14_dinov2", {**_SCALED, "mlp": "swiglu"}, dim=24),
    _vit("clip", "vit_base_patch16_clip_224", _CLIP),
    _vit("clip_quick_gelu", "vit_base_patch16_clip_quickgelu_224",
         {**_CLIP, "mlp": "quick_gelu"}),
    _vit("cvst", "vit_cvst", {"stem_widths": (4, 6, 8)}, stem_widths=(4, 6, 8)),
    _vit("tiny", "cait_xxs24_224", {}, family="CaiT"),
    _resnet("basic", {**_BASIC, "layers": (1, 2, 1, 1)}, "resnet18", {}),
    # 65 is odd at every stage: paddings show.
    _resnet(
        "bottleneck_gelu", {"activation": "gelu"}, "resnet50", {"act_layer": "gelu"}, 65
    ),
    _resnet(
        "groups_silu",
        {"cardinality": 4, "base_width": 32, "activation": "silu"},
        "resnext50_32x4d",
        {"cardinality": 4, "base_width": 32, "act_layer": "silu"},
    ),
    _resnet(
        "small_stem_wide",
        {"stem": "small", "base_width": 128},
        "resnet50_32",
        {"base_width": 128},
    ),
    Case(
        "wide_resnet",
        "WideResNet",
        {"depth": 16, "width": 1},  # 16 channels: the first group projects nothing
        "wide_resnet",
        {"depth": 16, "width": 1},
    ),
    Case(
        "preact_resnet",
        "PreActResNet",
        {"layers": (1, 2, 1, 1), "widths": (8, 16, 24, 24)},
        "preact_resnet",
        {"layers": (1, 2, 1, 1), "widths": (8, 16, 24, 24)},
    ),
    Case("cifar_resnet", "CifarResNet", {"depth": 14}, "cifar_resnet", {"depth": 14}),
    Case("convnext", "ConvNeXt", _CONVNEXT, "convnext_tiny", _CONVNEXT_TIMM, batch=2),
    Case(
        "convnext_cvst",
        "ConvNeXt",
        {**_CONVNEXT, "stem_widths": (4, 6, 8)},
        "convnext_cvst",
        {**_CONVNEXT_TIMM, "stem_widths": (4, 6, 8)},
        batch=2,
    ),
    _swin("three_stages", 32, 4, (2, 1, 1)),
    _swin("padded", 48, 8, (2, 2)),  # windows of 8 on a map of 12
    Case(
        "poolformer",
        "PoolFormer",
        {"depths": (1, 2, 1, 1), "widths": (8, 16, 24, 32)},
        "poolformer",
        {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32)},
        size=64,
        batch=2,
    ),
    Case(
        "poolformer_norm_first",
        "PoolFormer",
        {"depths": (1, 1, 1, 1), "widths": (8, 16, 24, 32), "norm_first": True},
        "poolformer_norm_first",
        {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
        size=64,
        batch=2,
    ),
)  # fmt: skip
NUM_CLASSES = 10


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of that torch key: a formula of its name and shape only.

    Scales keep activations of order one, and nothing at the value it is born with.
    """
    z = _noise(key).standard_normal(shape)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 0.5 + _noise(key).random_sample(shape)
    if leaf == "temperature":
        return 2 + _noise(key).random_sample(shape)
    if re.fullmatch(r"gamma(_?\d)?|scale", leaf):  # LayerScale
        return 0.5 + 0.25 * z
    if re.search(r"pos_embed$|token$|bias_table$", leaf):
        return 0.5 * z
    if leaf in ("bias", "running_mean"):
        return 0.1 * z
    if leaf != "weight":
        raise ValueError(f"no formula for {key} of shape {shape}")
    if len(shape) == 1:  # of a norm
        return 1 + 0.1 * z
    return z / np.sqrt(np.prod(shape[1:]))


def filled(table: Any) -> dict[str, Any]:
    """Our variables with those tensors, from `robustvit.interop.names.entries`."""
    variables: dict[str, Any] = {}
    for entry in table:
        scope = variables
        for part in entry.path[:-1]:
            scope = scope.setdefault(part, {})
        tensor = fill(entry.key, entry.torch_shape).astype(np.float32)
        scope[entry.path[-1]] = entry.from_torch(tensor)
    return variables


def images(case: Case) -> np.ndarray:
    """(b, h, w, 3) in [0, 1], float64."""
    return _noise(case.name).random_sample((case.batch, case.size, case.size, 3))


def sample(array: np.ndarray, limit: int = 400) -> np.ndarray:
    """At most that many of its values, evenly spread: enough to tell it by."""
    flat = np.asarray(array).ravel()
    if flat.size <= limit:
        return flat
    return flat[np.linspace(0, flat.size - 1, limit).astype(int)]


def weights(num_examples: int) -> np.ndarray:
    """(b, k): the gradient that is compared is that of the logits' sum, so weighted."""
    size = num_examples * NUM_CLASSES
    return np.cos(np.arange(size)).reshape(num_examples, NUM_CLASSES)


def _noise(key: str) -> np.random.RandomState:
    # RandomState's streams are frozen for good; a Generator's may change with NumPy.
    return np.random.RandomState(zlib.crc32(key.encode()))
