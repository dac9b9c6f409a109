"""What the convolutional families share: a convolution padded as torch pads, the head.

x = conv(64, 7, dtype, stride=2, name="conv1")(x)
return Outputs(logits=classify(pool(x), num_classes, name="fc"), ...)
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from robustvit.models.conv_gradient import conv_general_dilated
from robustvit.models.layers import (
    Activation,
    gelu,
    materialize,
    torch_bias_init,
    torch_conv_init,
)
from robustvit.types import AnyArray, Logits

Maps = Float[AnyArray, "b h w c"]
MapsOut = Float[AnyArray, "b i j d"]  # in a signature beside Maps: of other shape
Pooled = Float[AnyArray, "b c"]

# He et al. 2015, arXiv:1502.01852, for the backward pass; N(0, 2 / (k k c_out)).
kaiming_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

ACTIVATIONS: dict[str, Activation] = {"relu": nn.relu, "gelu": gelu, "silu": nn.silu}


def conv(
    features: int,
    size: int,
    dtype: Any,
    *,
    name: str,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
    init: Any = kaiming_init,
) -> nn.Conv:
    """A square convolution, padded alike on both sides; by default by size // 2.

    flax's "SAME" pads at stride 2 on one side only, which moves everything by a pixel.
    """
    pad = size // 2 if padding is None else padding
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        padding=((pad, pad), (pad, pad)),
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=init,
        dtype=dtype,
        conv_general_dilated=conv_general_dilated,
        name=name,
    )


def pool(x: Maps) -> Pooled:
    """Mean over positions, in float32."""
    return x.mean((1, 2), dtype=jnp.float32)


def settled(block: nn.Module, x: Maps) -> Maps:
    """x, the output of a residual block, written to memory (see `materialize`).

    Without it a train step of a ResNet takes a third more time on CPU and its
    compilation twice as much. `block` lends the kernel of its `conv1` as anchor.
    """
    return materialize(x, block.variables["params"]["conv1"]["kernel"])


def classify(
    pooled: Pooled,
    num_classes: int,
    *,
    name: str,
    init: Any = None,
    bias_init: Any = None,
) -> Logits:
    """A linear layer in float32, initialised as torch's own by default.

    Without classes there is no layer, and the logits are what it would read.
    """
    if not num_classes:
        return pooled
    return nn.Dense(
        num_classes,
        kernel_init=init or torch_conv_init,  # the same rule for linear layers
        bias_init=bias_init or torch_bias_init(pooled.shape[-1]),
        name=name,
    )(pooled)


def linear_drop_path(rate: float, depth: int) -> tuple[float, ...]:
    """Rates of stochastic depth per block: from 0 in the first to `rate` in the last.

    Reference: Huang et al. 2016, arXiv:1603.09382, section 3.
    """
    return tuple(rate * i / max(depth - 1, 1) for i in range(depth))
