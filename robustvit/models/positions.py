"""Position embeddings of patch tokens."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustvit import lookup
from robustvit.models.layers import torch_bias_init, torch_conv_init
from robustvit.types import AnyArray

CHANNELS = 32  # per axis
TEMPERATURE = 10000.0
EPS = 1e-6


class FourierPositions(nn.Module):
    """Sines and cosines of the relative position, then a learned projection."""

    dim: int
    dtype: Any

    @nn.compact
    def __call__(self, h: int, w: int) -> Float[Array, "1 h w d"]:
        """Position embedding of an h x w grid; independent of its resolution."""
        features = jnp.concatenate(  # y first
            [
                jnp.broadcast_to(fourier_features(h)[:, None], (h, w, 32)),
                jnp.broadcast_to(fourier_features(w)[None, :], (h, w, 32)),
            ],
            axis=-1,
        )
        proj = nn.Dense(
            self.dim,
            kernel_init=torch_conv_init,  # a 1x1 convolution in the reference
            bias_init=torch_bias_init(2 * CHANNELS),
            name="proj",
        )
        return proj(features)[None].astype(self.dtype)


def fourier_features(length: int) -> Float[Array, "n 32"]:
    """Features of positions 1..length, scaled to 2 pi: s0, c0, s1, c1, ..."""
    position = jnp.arange(1, length + 1) / (length + EPS) * 2 * jnp.pi
    k = jnp.arange(CHANNELS)
    period = TEMPERATURE ** (2 * (k // 2) / CHANNELS)
    angle = position[:, None] / period  # (n, 32)
    return jnp.where(k % 2 == 0, jnp.sin(angle), jnp.cos(angle))


def resize_table(
    table: Float[AnyArray, "1 n d"], grid: tuple[int, int], method: str
) -> Float[AnyArray, "1 m d"]:
    """A position embedding of a square grid, for another; a class token's row stays.

    Args:
      table: row by row; one row more than a square of them is the class token's, first.
      grid: (i, j), the grid that is wanted.
      method: see `resize_positions`.
    """
    native = math.isqrt(table.shape[1])
    if grid == (native, native):
        return table
    prefix = table.shape[1] - native**2
    patches = table[0, prefix:].reshape(native, native, -1)
    patches = resize_positions(patches, grid, method).reshape(1, -1, table.shape[-1])
    return jnp.concatenate([table[:, :prefix], patches], axis=1)


def resize_positions(
    table: Float[AnyArray, "h w d"], grid: tuple[int, int], method: str
) -> Float[Array, "i j d"]:
    """A learned position embedding for another grid of patches.

    Args:
      table: embedding of the native grid.
      grid: (i, j), the grid that is wanted.
      method: what the publisher of the weights does. "antialias": bicubic with
        antialiasing (timm, OpenCLIP, DINOv2 with registers). "bicubic": without
        (DeiT, and torch's default). "dinov2": without, at a scale of (size + 0.1) /
        native (DINOv2 without registers). "bilinear": corners to corners (the original
        ViT and AugReg).

    Raises:
      ValueError: for another method.
    """
    lookup.check("position_resize", method, RESIZE_METHODS)
    if method == "antialias":
        shape = (*grid, table.shape[-1])
        return jax.image.resize(table, shape, "bicubic", antialias=True)
    weights = _INTERPOLATIONS[method]
    rows, columns = (
        jnp.asarray(weights(old, new), table.dtype)
        for old, new in zip(table.shape[:2], grid, strict=True)
    )
    with jax.default_matmul_precision("highest"):  # constants of a model, not its work
        return jnp.einsum("iy,jx,yxd->ijd", rows, columns, table)


def _bicubic(old: int, new: int, offset: float = 0.0) -> np.ndarray:
    """(new, old) weights of torch's bicubic interpolation, which clamps at the edge."""
    source = (np.arange(new) + 0.5) * old / (new + offset) - 0.5
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        place = np.floor(source) + tap
        column = np.clip(place, 0, old - 1).astype(int)
        np.add.at(weights, (np.arange(new), column), _cubic(source - place))
    return weights


def _cubic(t: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys' kernel with torch's a."""
    t = np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _bilinear(old: int, new: int) -> np.ndarray:
    """(new, old) weights of linear interpolation, first to first and last to last."""
    source = np.linspace(0, old - 1, new)[:, None]
    return np.maximum(0.0, 1.0 - np.abs(source - np.arange(old)))


_INTERPOLATIONS = {
    "bicubic": _bicubic,
    "dinov2": lambda old, new: _bicubic(old, new, offset=0.1),
    "bilinear": _bilinear,
}
RESIZE_METHODS = ("antialias", *_INTERPOLATIONS)
