"""Fitting weights to a model that differs from theirs in patches, positions or input.

    tensor = fitted(key, tensor, wanted_shape, model)

All on torch's layout, by key, before anything is transposed.

References: FlexiViT, Beyer et al. 2023, arXiv:2212.08013 (patch size); inflated first
layers, Carreira and Zisserman 2017, arXiv:1705.07750 (channels).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from robustvit.models.positions import resize_table


def fitted(
    key: str, tensor: np.ndarray, shape: tuple[int, ...], model: Any
) -> np.ndarray | None:
    """The tensor in another shape, where there is a known way; None where not.

    Args:
      key: timm's name of it.
      tensor: what the file has.
      shape: what the model has.
      model: whose fields say how positions are resized.
    """
    if tensor.shape == shape:
        return tensor
    if key == "pos_embed" and tensor.ndim == 3 and tensor.shape[-1] == shape[-1]:
        return _positions(tensor, shape, getattr(model, "position_resize", "antialias"))
    if tensor.ndim == len(shape) == 4 and tensor.shape[0] == shape[0]:
        return _first_layer(key, tensor, shape)
    return None


def _positions(tensor, shape, method):
    """(1, [1 +] n, d) to another square grid; the class token's stays as it is."""
    old, new = math.isqrt(tensor.shape[1]), math.isqrt(shape[1])
    prefix = tensor.shape[1] - old**2
    if tensor.shape[0] != 1 or not old:
        return None
    if prefix != shape[1] - new**2 or prefix > 1:
        return None
    table = np.asarray(tensor, np.float32)
    return np.asarray(resize_table(table, (new, new), method))


def _first_layer(key, kernel, shape):
    """(o, i, h, w) to more input channels, or, of a patch embedding, another size."""
    if not kernel.size:
        return None
    kernel = np.asarray(kernel, np.float32)
    _, old, *size = kernel.shape
    _, new, *wanted = shape
    if new != old:
        if old != 3 or new % old:
            return None
        kernel = inflate(kernel, new // old)
    if size != wanted:
        if not key.endswith("patch_embed.proj.weight"):
            return None
        kernel = resize_patches(kernel, (wanted[0], wanted[1]))
    return kernel


def inflate(kernel: np.ndarray, times: int) -> np.ndarray:
    """(o, 3, h, w) to (o, 3 * times, h, w), with the same output on repeated images."""
    return np.tile(kernel, (1, times, 1, 1)) / times


def resize_patches(kernel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(o, i, h, w) to patches of another size, with the same output on resized ones.

    With B the matrix that resizes a patch, the new kernel is the pseudo-inverse of B
    transposed, times the old one.
    """
    o, i, h, w = kernel.shape
    basis = np.eye(h * w, dtype=np.float32).reshape(h, w, h * w)
    with jax.default_matmul_precision("highest"):
        resized = jax.image.resize(basis, (*size, h * w), "bicubic", antialias=True)
    matrix = np.asarray(resized, np.float64).reshape(-1, h * w)  # new from old
    inverse = np.linalg.pinv(matrix.T)  # (new, old)
    flat = np.asarray(kernel, np.float64).reshape(o * i, h * w) @ inverse.T
    return flat.reshape(o, i, *size).astype(np.float32)
