"""Depthwise 3x3 convolution whose gradients XLA:CPU also computes fast.

x = DepthwiseConv3x3(dtype)(x)      # (b, h, w, c)
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from robustvit.models.layers import torch_bias_init, torch_conv_init
from robustvit.types import AnyArray


class DepthwiseConv3x3(nn.Module):
    """3x3 convolution of each channel by itself, stride 1, padding 1, with bias."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[AnyArray, "b h w c"]) -> Float[AnyArray, "b h w c"]:
        """Kernel (3, 3, 1, c) as in `nn.Conv` with `feature_group_count=c`."""
        channels = x.shape[-1]
        kernel = self.param("kernel", torch_conv_init, (3, 3, 1, channels))
        bias = self.param("bias", torch_bias_init(9), (channels,))
        y = depthwise_conv(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + bias.astype(self.dtype)


@jax.custom_vjp
def depthwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 1 c"]
) -> Float[Array, "b h w c"]:
    """Depthwise 3x3 correlation; on CPU as nine shifted products, which is faster."""
    return lax.platform_dependent(
        x, kernel, cpu=_depthwise_shifts, default=_depthwise_lax
    )


def _depthwise_fwd(x, kernel):
    return depthwise_conv(x, kernel), (x, kernel)


def _depthwise_bwd(residuals, dy):
    x, kernel = residuals
    dx = depthwise_conv(dy, kernel[::-1, ::-1])
    dkernel = lax.platform_dependent(
        x, dy, cpu=_kernel_gradient_shifts, default=_kernel_gradient_lax
    )
    return dx, dkernel.astype(kernel.dtype)


depthwise_conv.defvjp(_depthwise_fwd, _depthwise_bwd)


def _depthwise_lax(x, kernel):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _kernel_gradient_lax(x, dy):
    shape = jnp.zeros((3, 3, 1, x.shape[-1]), x.dtype)
    _, pullback = jax.vjp(lambda kernel: _depthwise_lax(x, kernel), shape)
    return pullback(dy)[0]


def _shifted(x):
    """The nine windows of a 3x3 convolution, row by row: each (b, h, w, c)."""
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]


def _depthwise_shifts(x, kernel):
    taps = kernel.reshape(9, -1)
    products = (window * tap for window, tap in zip(_shifted(x), taps, strict=True))
    return functools.reduce(jnp.add, products)


def _kernel_gradient_shifts(x, dy):
    dy = dy.astype(jnp.float32)
    products = tuple(window * dy for window in _shifted(x))
    zeros = (jnp.zeros((), jnp.float32),) * 9

    def add(a, b):
        return tuple(p + q for p, q in zip(a, b, strict=True))

    # One reduction of nine operands is one pass; nine separate ones write down each
    # of the windows first.
    taps = lax.reduce(products, zeros, add, (0, 1, 2))
    return jnp.stack(taps).reshape(3, 3, 1, -1)
