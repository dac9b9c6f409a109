"""A network that compiles in no time and has all that training modes differ in."""

import flax.linen as nn
import jax.numpy as jnp

from robustvit.models.layers import BatchNorm
from robustvit.types import Outputs


class TinyNet(nn.Module):
    """Convolution, BatchNorm, dropout, linear map."""

    dropout: float = 0.0
    bn_group: int | None = None

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(images)
        x = jnp.tanh(BatchNorm(self.bn_group, name="bn")(x, train=train))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = nn.Dense(5, name="head")(x.mean((1, 2)))
        return Outputs(logits=10 * logits, features=x, hidden=(x,))
