"""How publishers name their tensors, and the way from there to timm's names.

    tensors, style = to_timm(tensors)

A style is data: a pattern that gives it away, renames that are applied to every key in
order, keys that are not part of the network, and for some a function where tensors have
to be cut or joined. Keys that already are timm's pass through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from robustvit.interop.eight_bn import fold_eight_bn

Tensors = dict[str, np.ndarray]


class Style(NamedTuple):
    """One publisher's way of writing a family down.

    Attributes:
      name: for messages.
      tell: pattern that this style has among its keys,
      unless: and one that it has not.
      renames: (pattern, replacement), each tried on every key, in order.
      dropped: patterns of keys that the network does not need.
      rework: after renaming, for what renaming cannot do.
    """

    name: str
    tell: str
    unless: str = r"(?!)"
    renames: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()
    rework: Callable[[Tensors], Tensors] = lambda tensors: tensors


def to_timm(tensors: Mapping[str, np.ndarray]) -> tuple[Tensors, str]:
    """The same tensors under timm's names, and the name of the style they came in."""
    for style in STYLES:
        if _any(style.tell, tensors) and not _any(style.unless, tensors):
            kept = {}
            for key, value in tensors.items():
                if any(re.search(pattern, key) for pattern in style.dropped):
                    continue
                name = _renamed(key, style.renames)
                if name in kept:
                    raise ValueError(f"the weights have {name} under two names")
                kept[name] = value
            return style.rework(kept), style.name
    return dict(tensors), "timm"


def _any(pattern, keys):
    return any(re.search(pattern, key) for key in keys)


def _renamed(key, renames):
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def _split_class_attention(tensors: Tensors) -> Tensors:
    """One (3d, ...) tensor for query, key and value to three of (d, ...)."""
    result = {}
    for key, value in tensors.items():
        parts = re.fullmatch(r"(cls_attn_blocks\.\d+\.attn)\.qkv\.(\w+)", key)
        if parts and value.ndim and len(value) % 3 == 0:
            for name, third in zip("qkv", np.split(value, 3), strict=True):
                result[f"{parts[1]}.{name}.{parts[2]}"] = third
        else:
            result[key] = value
    return result


def _fold_class_position(tensors: Tensors) -> Tensors:
    """With registers timm has no position for the class token: it is added to it."""
    if not {"reg_token", "cls_token", "pos_embed"} <= tensors.keys():
        return tensors
    # In float32, as a sum in half precision would be rounded.
    token, position = (np.asarray(tensors[k], np.float32) for k in (
        "cls_token", "pos_embed"))  # fmt: skip
    return {
        **tensors,
        "cls_token": token + position[:, :1],
        "pos_embed": position[:, 1:],
    }


def _open_clip(tensors: Tensors) -> Tensors:
    """timm keeps class token and positions with a batch axis, and a linear head."""
    result = dict(tensors)
    if "cls_token" in result:
        result["cls_token"] = result["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in result:
        result["pos_embed"] = result["pos_embed"][None]
    projection = result.pop("visual.proj", None)  # (d, e)
    if projection is not None:
        result["head.weight"] = projection.T
        result["head.bias"] = np.zeros(projection.shape[1], projection.dtype)
    return result


STYLES = (
    Style(
        "Facebook's XCiT",
        tell=r"^pos_embeder\.",
        renames=((r"^pos_embeder\.", "pos_embed."),),
        rework=_split_class_attention,
    ),
    Style(
        "OpenCLIP's or OpenAI's CLIP",
        tell=r"^visual\.transformer\.resblocks\.",
        renames=(
            (r"^visual\.class_embedding$", "cls_token"),
            (r"^visual\.positional_embedding$", "pos_embed"),
            (r"^visual\.conv1\.", "patch_embed.proj."),
            (r"^visual\.ln_pre\.", "norm_pre."),
            (r"^visual\.ln_post\.", "norm."),
            (r"^visual\.transformer\.resblocks\.", "blocks."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.attn\.in_proj_", ".attn.qkv."),
            (r"\.attn\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.c_fc\.", ".mlp.fc1."),
            (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        ),
        dropped=(r"^(?!visual\.)",),  # the text tower
        rework=_open_clip,
    ),
    Style(
        "the DINOv2 hub's, or MAE's",
        tell=r"^register_tokens$|\.mlp\.w12\.|^mask_token$",
        renames=(
            (r"^blocks\.\d+\.(\d+\.)", r"blocks.\1"),  # as sharded for training
            (r"\.mlp\.w12\.", ".mlp.fc1."),
            (r"\.mlp\.w3\.", ".mlp.fc2."),
            (r"^register_tokens$", "reg_token"),
        ),
        dropped=(r"^mask_token$", r"^decoder"),  # masked-image training, MAE's too
        rework=_fold_class_position,
    ),
    Style(
        "Facebook's DeiT-III",
        tell=r"^blocks\.\d+\.gamma_1$",
        unless=r"^blocks_token_only\.",  # CaiT, whose gammas keep that name
        renames=((r"\.gamma_([12])$", r".ls\1.gamma"),),
    ),
    Style(
        "Facebook's ConvNeXt",
        tell=r"^downsample_layers\.",
        renames=(
            (r"^downsample_layers\.0\.", "stem."),
            (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
            (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
            (r"\.dwconv\.", ".conv_dw."),
            (r"\.pwconv([12])\.", r".mlp.fc\1."),
            (r"^head\.", "head.fc."),
            (r"^norm\.", "head.norm."),
        ),
    ),
    Style(
        "TRADES' WideResNet",
        tell=r"^sub_block1\.",
        dropped=(r"^sub_block1\.",),  # defined there, and never called
    ),
    Style(
        "Bai et al.'s ResNet-50",
        tell=r"\.bn0\.proxy_bn\.",
        rework=fold_eight_bn,
    ),
)
