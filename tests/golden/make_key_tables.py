"""Writes key_tables.json: keys and shapes of timm's state dicts, by model name.

    python -m tests.golden.make_key_tables      # needs timm 1.0.31 (and torch 2)

Models are built on torch's meta device, so nothing is downloaded and no weight is made.
"""

import json

import timm
import torch

from tests.interop.key_tables import PATH, collapse

NAMES = [
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
    "vit_large_patch14_dinov2",
    "vit_giant_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch14_reg4_dinov2",
    "vit_large_patch14_reg4_dinov2",
    "vit_giant_patch14_reg4_dinov2",
    "deit3_small_patch16_224",
    "deit3_base_patch16_224",
    "deit3_large_patch16_224",
    "deit3_huge_patch14_224",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_patch16_224.augreg_in21k",
    "vit_base_patch16_224.orig_in21k",
    "vit_base_patch16_224.mae",
    "vit_base_patch32_224",
    "vit_base_patch16_384",
    "vit_large_patch16_224",
    "vit_base_patch32_clip_224",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_clip_224.laion2b",
    "vit_large_patch14_clip_224",
    "vit_large_patch14_clip_224.laion2b",
    "vit_huge_patch14_clip_224",
    "vit_huge_patch14_clip_224.laion2b",
    "vit_base_patch16_clip_quickgelu_224",
    "xcit_nano_12_p16_224",
    "xcit_tiny_12_p16_224",
    "xcit_small_12_p16_224",
    "xcit_small_12_p8_224",
    "xcit_tiny_24_p16_224",
    "xcit_small_24_p16_224",
    "xcit_medium_24_p16_224",
    "xcit_large_24_p16_224",
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "cait_xxs24_224",
    "cait_xxs36_224",
    "cait_xs24_384",
    "cait_s24_224",
    "resnet18",
    "resnet50",
    "resnet152",
    "wide_resnet50_2",
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
    "convnext_large",
    "swin_base_patch4_window7_224",
    "swin_large_patch4_window7_224",
]


def table(name):
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    return collapse(shapes)


if __name__ == "__main__":
    rows = [
        f"{json.dumps(n)}: {json.dumps(table(n), separators=(',', ':'))}" for n in NAMES
    ]
    PATH.write_text("{\n" + ",\n".join(rows) + "\n}\n")
