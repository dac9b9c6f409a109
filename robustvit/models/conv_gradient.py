"""Convolution whose input gradient is fast inside a loop on CPU, where attacks take it.

    nn.Conv(64, (3, 3), conv_general_dilated=conv_general_dilated)

XLA's CPU compiler rewrites convolutions into the form that its library takes, but only
outside of loops. In the loop of an attack, autodiff's gradient by the input, whose
kernel stays transposed, runs ten times slower than it could; here the kernel is
transposed before. Other backends get autodiff's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from robustvit.types import AnyArray

LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    x: Float[AnyArray, "b h w c"],
    kernel: Float[AnyArray, "i j g d"],
    strides: Sequence[int],
    padding: Any,
    *,
    feature_group_count: int = 1,
    **options: Any,
) -> Float[Array, "b k l d"]:
    """`lax.conv_general_dilated` as flax's `nn.Conv` calls it, without dilation."""
    if feature_group_count > 1:  # which the library does not take in any form
        options["feature_group_count"] = feature_group_count
        x, kernel = jnp.asarray(x), jnp.asarray(kernel)
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return _conv(x, kernel, tuple(strides), tuple((a, b) for a, b in padding))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, kernel, strides, padding):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=LAYOUT
    )


def _forward(x, kernel, strides, padding):
    return _conv(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, residuals, dy):
    x, kernel = residuals
    plain = partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        dimension_numbers=LAYOUT,
    )
    dx = lax.platform_dependent(
        kernel,
        dy,
        cpu=partial(_input_gradient, x.shape[1:3], strides, padding),
        default=lambda k, dy: jax.vjp(lambda x: plain(x, k), x)[1](dy)[0],
    )
    dkernel = jax.vjp(lambda k: plain(x, k), kernel)[1](dy)[0]
    return dx, dkernel


_conv.defvjp(_forward, _backward)


def _input_gradient(size, strides, padding, kernel, dy):
    """dy, spread by the strides, against the kernel turned around."""
    around = []
    for n, m, k, stride, (low, _) in zip(
        size, dy.shape[1:3], kernel.shape[:2], strides, padding, strict=True
    ):
        before = k - 1 - low
        spread = (m - 1) * stride + 1
        around.append((before, n + k - 1 - spread - before))
    return lax.conv_general_dilated(
        dy,
        jnp.swapaxes(kernel[::-1, ::-1], 2, 3),
        (1, 1),
        around,
        lhs_dilation=strides,
        dimension_numbers=LAYOUT,
    )
