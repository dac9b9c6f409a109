"""Position embeddings of patch tokens."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustvit.models.layers import torch_bias_init, torch_conv_init

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
