"""Attention that more than one family has.

cls = ClassAttention(num_heads, dtype)(tokens)      # (b, 1 + n, d) to (b, 1, d)
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustvit.models.layers import dense
from robustvit.types import Tokens


class ClassAttention(nn.Module):
    """Multi-head attention with one query, the class token."""

    num_heads: int
    dtype: Any

    @nn.compact
    def __call__(self, z: Tokens) -> Float[Array, "b 1 d"]:
        """The new class token; softmax in float32."""
        b, _, d = z.shape
        heads = (b, -1, self.num_heads, d // self.num_heads)
        q = dense(d, self.dtype, name="q")(z[:, :1]).reshape(heads)
        k = dense(d, self.dtype, name="k")(z).reshape(heads)
        v = dense(d, self.dtype, name="v")(z).reshape(heads)
        scores = jnp.einsum("bqhc,bnhc->bhqn", q, k, preferred_element_type=jnp.float32)
        attention = nn.softmax(scores * heads[-1] ** -0.5).astype(self.dtype)
        x = jnp.einsum("bhqn,bnhc->bqhc", attention, v).reshape(b, 1, d)
        return dense(d, self.dtype, name="proj")(x)
