"""Writes resizing.npz: what torch and timm make of positions and patch embeddings.

python tests/golden/make_resizing.py      # needs torch 2 and timm 1.0.31
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_patch_embed

rng = np.random.default_rng(0)
TABLE = rng.normal(size=(7, 7, 5)).astype(np.float32)
PATCHES = rng.normal(size=(4, 3, 8, 8)).astype(np.float32)
GRIDS = {"smaller": (4, 4), "larger": (12, 12), "oblong": (3, 9)}


def interpolated(size, *, offset=0.0, antialias=False):
    image = torch.tensor(TABLE).permute(2, 0, 1)[None]
    if offset:
        scale = tuple((n + offset) / 7 for n in size)
        result = F.interpolate(image, scale_factor=scale, mode="bicubic")
    else:
        result = F.interpolate(image, size=size, mode="bicubic", antialias=antialias)
    return result[0].permute(1, 2, 0).numpy()


arrays = {"table": TABLE, "patches": PATCHES}
for name, grid in GRIDS.items():
    flat = torch.tensor(TABLE).reshape(1, 49, 5)
    timm = resample_abs_pos_embed(flat, list(grid), num_prefix_tokens=0)
    arrays[f"antialias/{name}"] = timm.reshape(*grid, 5).numpy()
    arrays[f"bicubic/{name}"] = interpolated(grid)
    arrays[f"dinov2/{name}"] = interpolated(grid, offset=0.1)
    image = torch.tensor(TABLE).permute(2, 0, 1)[None]
    linear = F.interpolate(image, size=grid, mode="bilinear", align_corners=True)
    arrays[f"bilinear/{name}"] = linear[0].permute(1, 2, 0).numpy()
for size in (4, 12):
    resized = resample_patch_embed(torch.tensor(PATCHES), [size, size])
    arrays[f"patches/{size}"] = resized.numpy()
np.savez_compressed(Path(__file__).with_name("resizing.npz"), **arrays)
