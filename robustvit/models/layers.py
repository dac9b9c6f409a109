"""Layers that several model families share, and that flax does not have as we need.

x = BatchNorm(group=64)(x, train=train)
x = x + DropPath(0.05)(y, train=train)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers
from jaxtyping import Float

from robustvit.types import AnyArray, Inputs, Tokens

LN_EPS = 1e-6  # timm's ViT, XCiT and CaiT; torch's own default is 1e-5
BN_EPS = 1e-5  # torch
BN_MOMENTUM = 0.9  # torch writes the same as 0.1

Activation = Callable[[Any], Any]

# torch's default for convolutions, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
torch_conv_init = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# trunc_normal_(std=.02) cuts at +-2 *absolute*, 100 standard deviations: never.
linear_init = initializers.normal(0.02)


def torch_bias_init(fan_in: int):
    """Initialiser for the bias of a torch convolution with that fan-in."""

    def init(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


@jax.custom_jvp
def gelu(x: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
    """Exact GELU, x Phi(x); its derivative is made in the forward pass and kept.

    Saving the derivative (one array) instead of what autodiff would save cuts 8 % off
    the attack pass of an XCiT block on a v4 core.
    """
    return x * _normal_cdf(x)


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    cdf = _normal_cdf(x)
    density = jnp.exp(-0.5 * x * x) * (2 * jnp.pi) ** -0.5
    return x * cdf, (cdf + x * density) * x_dot


def _normal_cdf(x):
    return 0.5 * (1.0 + lax.erf(x * 0.5**0.5))


@jax.custom_vjp
def materialize(
    x: Float[AnyArray, "..."], anchor: Float[AnyArray, "..."]
) -> Float[AnyArray, "..."]:
    """x, which XLA's CPU compiler must then compute once and write to memory.

    That compiler fuses cheap producers into every consumer. Along a residual stream
    each block then recomputes the sum of all blocks before it (after it, in the
    backward pass), which doubles the time of a train step of 12 blocks and triples
    its compilation; `lax.optimization_barrier` is gone before fusion runs. It does not
    look into a conditional. Other backends see the identity.

    Args:
      x: what to write down; its gradient is, too.
      anchor: a parameter, so that the condition is not known to the compiler and is
        the same on all devices. It gets no gradient.
    """
    return lax.platform_dependent(x, anchor, cpu=_opaque, default=lambda x, _: x)


def _opaque(x, anchor):
    always = anchor.ravel()[0] < jnp.inf  # and if not, the value is the same
    return lax.cond(always, lambda y: y, lax.optimization_barrier, x)


def _materialize_fwd(x, anchor):
    return materialize(x, anchor), anchor


def _materialize_bwd(anchor, dy):
    return materialize(dy, anchor), None


materialize.defvjp(_materialize_fwd, _materialize_bwd)


class Normalize(nn.Module):
    """(x - mean) / std per channel: where a model takes its input normalisation.

    Both are kept in `batch_stats`, so that weights carry the normalisation they were
    trained with; without variables the fields are used.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @nn.compact
    def __call__(self, images: Inputs) -> Inputs:
        """Images in [0, 1] to what the network was trained on."""
        if not images.shape[-1] == len(self.mean) == len(self.std):
            raise ValueError(
                f"images have {images.shape[-1]} channels, and mean={self.mean} and "
                f"std={self.std} are for {len(self.mean)} and {len(self.std)}"
            )

        def statistic(name, values):
            values = jnp.asarray(values, jnp.float32)
            if self.is_initializing() or self.has_variable("batch_stats", name):
                return self.variable("batch_stats", name, lambda: values).value
            return values

        mean, std = statistic("mean", self.mean), statistic("std", self.std)
        return (images - mean) / std


class LayerNorm(nn.LayerNorm):
    """flax's LayerNorm at timm's epsilon, with statistics by the two-pass formula."""

    epsilon: float = LN_EPS
    use_fast_variance: bool = False


class DropPath(nn.Module):
    """Stochastic depth: drops a whole residual branch per example.

    Reference: Huang et al. 2016, arXiv:1603.09382.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "b ..."], *, train: bool
    ) -> Float[AnyArray, "b ..."]:
        """Zero the branch with probability `rate`; scale what is kept by 1 / keep."""
        if not train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return x * kept.astype(x.dtype) / keep


class LayerScale(nn.Module):
    """A learned factor per channel of a residual branch.

    Reference: Touvron et al. 2021, arXiv:2103.17239.
    """

    start: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """(b, n, d) to (b, n, d)."""
        init = nn.initializers.constant(self.start)
        return x * self.param("gamma", init, (x.shape[-1],)).astype(self.dtype)


def dense(features: int, dtype: Any, *, name: str) -> nn.Dense:
    """A linear layer with the transformer's initialisation."""
    return nn.Dense(features, dtype=dtype, kernel_init=linear_init, name=name)


class Mlp(nn.Module):
    """Two linear layers, four times wider inside."""

    dtype: Any
    activation: Activation = gelu

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """(b, n, d) to (b, n, d)."""
        d = x.shape[-1]
        x = self.activation(dense(4 * d, self.dtype, name="fc1")(x))
        return dense(d, self.dtype, name="fc2")(x)


class BatchNorm(nn.Module):
    """Batch normalisation with statistics per group of consecutive examples.

    `group=64` gives what 64 images per core gave in the published runs, on any number
    of devices and without a collective; `group=None` takes the whole global batch.
    Running statistics are the average over groups, with torch's n/(n-1) variance. They
    move only in training mode and when `batch_stats` is mutable.

    Raises:
      ValueError: when tracing, if the batch is not a multiple of `group`.
    """

    group: int | None = None
    dtype: Any = jnp.float32
    scale_init: Any = nn.initializers.ones

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "b *spatial c"], *, train: bool
    ) -> Float[AnyArray, "b *spatial c"]:
        """Normalise over everything but the last axis; statistics in float32."""
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train:
            return self._affine(x, mean.value, var.value, scale, bias)

        grouped = self._split(x)  # (g, n, c)
        count = grouped.shape[1]
        group_mean = grouped.mean(1, dtype=jnp.float32)  # (g, c)
        centred = grouped.astype(jnp.float32) - group_mean[:, None]
        group_var = jnp.square(centred).mean(1)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            unbiased = group_var.mean(0) * (count / max(count - 1, 1))
            mean.value = _moved(mean.value, group_mean.mean(0))
            var.value = _moved(var.value, unbiased)
        y = self._affine(grouped, group_mean[:, None], group_var[:, None], scale, bias)
        return y.reshape(x.shape)

    def _split(self, x):
        batch = x.shape[0]
        group = self.group or batch
        # flax initialises with a batch of one.
        if batch % group and not self.is_initializing():
            raise ValueError(
                f"a batch of {batch} does not split into BatchNorm groups of {group}"
            )
        groups = max(batch // group, 1)
        return x.reshape(groups, -1, x.shape[-1])

    def _affine(self, x, mean, var, scale, bias):
        factor = scale * lax.rsqrt(var + BN_EPS)
        return (x * factor + (bias - mean * factor)).astype(self.dtype)


def _moved(running, new):
    return BN_MOMENTUM * running + (1.0 - BN_MOMENTUM) * new
