"""Windows of a map, and attention within them.

    y = WindowAttention(num_heads, dtype)(split(x, window), mask)
    x = merge(y, x.shape[1:3])

Reference: Liu et al. 2021, arXiv:2103.14030.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from robustvit.models.convolutions import Maps
from robustvit.models.layers import dense, linear_init
from robustvit.types import AnyArray

MASKED = -100.0  # added to the scores of pairs that are not neighbours

Windows = Float[AnyArray, "b m n d"]  # m windows of n tokens


class WindowAttention(nn.Module):
    """Multi-head self-attention in each window, with a bias per relative position."""

    num_heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Windows, mask: Float[np.ndarray, "m n n"] | None) -> Windows:
        """(b, m, n, d) to (b, m, n, d); softmax in float32."""
        b, m, n, d = x.shape
        qkv = dense(3 * d, self.dtype, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, m, n, 3, self.num_heads, -1), 3, 0)

        window = round(n**0.5)
        table = self.param(
            "relative_position_bias_table",
            linear_init,
            ((2 * window - 1) ** 2, self.num_heads),
        )
        bias = jnp.moveaxis(table[relative_positions(window)], -1, 0)  # (h, n, n)
        scores = jnp.einsum(
            "bmqhc,bmkhc->bmhqk", q, k, preferred_element_type=jnp.float32
        )
        scores = scores * q.shape[-1] ** -0.5 + bias
        if mask is not None:
            scores += mask[:, None]
        attention = nn.softmax(scores).astype(self.dtype)
        x = jnp.einsum("bmhqk,bmkhc->bmqhc", attention, v).reshape(b, m, n, d)
        return dense(d, self.dtype, name="proj")(x)


def split(x: Maps, window: int) -> Windows:
    """A map to its windows, row by row."""
    b, h, w, d = x.shape
    x = x.reshape(b, h // window, window, w // window, window, d).swapaxes(2, 3)
    return x.reshape(b, -1, window**2, d)  # (b, m, n, d)


def merge(x: Windows, size: tuple[int, int]) -> Maps:
    """The inverse of `split`: to a map of that size."""
    b, _, n, d = x.shape
    window = round(n**0.5)
    rows, columns = size[0] // window, size[1] // window
    x = x.reshape(b, rows, columns, window, window, d).swapaxes(2, 3)
    return x.reshape(b, *size, d)


def relative_positions(window: int) -> Int[np.ndarray, "n n"]:
    """Row of the bias table for every pair of tokens of a window."""
    row, column = np.divmod(np.arange(window**2), window)
    down = row[:, None] - row + window - 1
    right = column[:, None] - column + window - 1
    return down * (2 * window - 1) + right


def shift_mask(
    size: tuple[int, int], window: int, shift: int
) -> Float[np.ndarray, "m n n"]:
    """What to add to scores so that parts that the shift put together stay apart.

    A shifted map ends, in either direction, in a strip of `shift` tokens that came
    around from the other side.
    """

    def part(side):
        i = np.arange(side, dtype=np.float32)
        return 1.0 * (i >= side - window) + (i >= side - shift)

    parts = 3 * part(size[0])[:, None] + part(size[1])  # (h, w)
    parts = split(parts[None, :, :, None], window)[0, :, :, 0]  # (m, n)
    together = parts[:, :, None] == parts[:, None]
    return np.where(together, 0.0, MASKED).astype(np.float32)
