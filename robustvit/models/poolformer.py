"""PoolFormer: a transformer whose tokens are mixed by average pooling.

    model = create_model("poolformer_s12", num_classes=1000)

Names are those of timm's MetaFormer. timm normalises after the final pooling, the
authors before it; `poolformer_m12`, which the Light Recipe's authors trained before
timm had the family, is the authors' function under timm's names.

Reference: Yu et al. 2022, arXiv:2111.11418.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from robustvit.models.convolutions import (
    Maps,
    MapsOut,
    classify,
    conv,
    linear_drop_path,
    pool,
)
from robustvit.models.layers import (
    DropPath,
    LayerNorm,
    Normalize,
    gelu,
    linear_init,
    materialize,
)
from robustvit.models.statistics import IMAGENET
from robustvit.types import AnyArray, Inputs, Outputs

_conv = partial(conv, bias=True, init=linear_init)
# One group: over positions and channels of an example. 1e-5 is torch's default.
_group_norm = partial(nn.GroupNorm, num_groups=1, epsilon=1e-5, use_fast_variance=False)


class PoolFormer(nn.Module):
    """Four stages of pooling and pointwise MLPs, with LayerScale.

    Attributes:
      num_classes: outputs of the head; 0 for none (logits are pooled features then).
      depths: blocks per stage.
      widths: channels of the stages.
      layer_scale: its initial value.
      norm_first: the final norm is a GroupNorm before the pooling, as published,
        instead of timm's LayerNorm after it.
      drop_path: rate of stochastic depth in the last block, rising linearly from 0.
      mean, std: input normalisation of a new model.
      remat: recompute each block in the backward pass instead of storing it.
      dtype: of the computation; parameters, final norm and head are float32.
    """

    num_classes: int = 1000
    depths: tuple[int, ...] = (2, 2, 6, 2)
    widths: tuple[int, ...] = (64, 128, 320, 512)
    layer_scale: float = 1e-5
    norm_first: bool = False
    drop_path: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Inputs, *, train: bool = False) -> Outputs:
        """Images (b, h, w, 3) in [0, 1]; `features` are the maps that are pooled.

        `hidden` holds the maps after each block.
        """
        x = Normalize(self.mean, self.std, name="normalize")(images).astype(self.dtype)
        x = Patches(self.widths[0], 7, 4, 2, self.dtype, name="stem")(x)
        rates = linear_drop_path(self.drop_path, sum(self.depths))
        hidden = []
        for i, depth in enumerate(self.depths):
            maps = Stage(
                width=self.widths[i],
                downsample=i > 0,
                layer_scale=self.layer_scale,
                drop_path=rates[len(hidden) : len(hidden) + depth],
                remat=self.remat,
                dtype=self.dtype,
                name=f"stages_{i}",
            )(x, train)
            hidden.extend(maps)
            x = maps[-1]
        logits, features = Head(self.num_classes, self.norm_first, name="head")(x)
        return Outputs(logits=logits, features=features, hidden=tuple(hidden))


class Patches(nn.Module):
    """A convolution that lowers the resolution, with no norm."""

    width: int
    size: int
    stride: int
    padding: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps) -> MapsOut:
        """(b, h, w, c) to (b, h / stride, w / stride, width)."""
        return _conv(
            self.width,
            self.size,
            self.dtype,
            stride=self.stride,
            padding=self.padding,
            name="conv",
        )(x)


class Stage(nn.Module):
    """Blocks of one width, after a 3x3 convolution at stride 2."""

    width: int
    downsample: bool
    layer_scale: float
    drop_path: tuple[float, ...]
    remat: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> list[MapsOut]:
        """Maps after each block."""
        if self.downsample:
            x = Patches(self.width, 3, 2, 1, self.dtype, name="downsample")(x)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        outputs = []
        for i, rate in enumerate(self.drop_path):
            x = block(self.layer_scale, rate, self.dtype, name=f"blocks_{i}")(x, train)
            outputs.append(x)
        return outputs


class Block(nn.Module):
    """Pooling minus its input, then an MLP; each normed before and scaled after."""

    layer_scale: float
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """(b, h, w, c) to (b, h, w, c)."""

        def add(x, i, branch):
            # The dot: timm has a module `layer_scale1` with a parameter `scale`, and
            # a leaf of that name would be a norm's weight (`interop.names`).
            gamma = self.param(
                f"layer_scale{i}.scale",
                nn.initializers.constant(self.layer_scale),
                x.shape[-1:],
            )
            branch = DropPath(self.drop_path)(branch, train=train)
            return materialize(x + branch * gamma.astype(self.dtype), gamma)

        norm = partial(_group_norm, dtype=self.dtype)
        y = norm(name="norm1")(x)
        x = add(x, 1, mean_of_neighbours(y) - y)
        return add(x, 2, ConvMlp(self.dtype, name="mlp")(norm(name="norm2")(x)))


def mean_of_neighbours(x: Maps) -> Maps:
    """3x3 average; what lies outside the map does not count."""
    padding: Any = ((1, 1), (1, 1))  # flax declares a string only
    mean = nn.avg_pool(x, (3, 3), padding=padding, count_include_pad=False)
    return mean.astype(x.dtype)


class ConvMlp(nn.Module):
    """Two 1x1 convolutions, four times wider inside."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        """(b, h, w, c) to (b, h, w, c)."""
        c = x.shape[-1]
        x = gelu(_conv(4 * c, 1, self.dtype, name="fc1")(x))
        return _conv(c, 1, self.dtype, name="fc2")(x)


class Head(nn.Module):
    """Norm and mean over positions in either order, linear layer; in float32."""

    num_classes: int
    norm_first: bool

    @nn.compact
    def __call__(self, x: Maps) -> tuple[Float[AnyArray, "b k"], Maps]:
        """(b, h, w, c) to logits (b, num_classes), and the maps that were pooled."""
        x = x.astype(jnp.float32)
        if self.norm_first:
            x = _group_norm(name="norm")(x)
            pooled = pool(x)
        else:
            pooled = LayerNorm(name="norm")(pool(x))
        logits = classify(
            pooled,
            self.num_classes,
            name="fc",
            init=linear_init,
            bias_init=nn.initializers.zeros,
        )
        return logits, x


_WIDE: dict[str, Any] = {"widths": (96, 192, 384, 768)}
_36: dict[str, Any] = {"depths": (6, 6, 18, 6), "layer_scale": 1e-6}
_48: dict[str, Any] = {"depths": (8, 8, 24, 8), "layer_scale": 1e-6}

VARIANTS: dict[str, dict[str, Any]] = {
    "poolformer_s12": IMAGENET,
    "poolformer_s24": {"depths": (4, 4, 12, 4), **IMAGENET},
    "poolformer_s36": {**_36, **IMAGENET},
    "poolformer_m36": {**_36, **_WIDE, **IMAGENET},
    "poolformer_m48": {**_48, **_WIDE, **IMAGENET},
    # The Light Recipe's own size, without normalisation as its other ImageNet models.
    "poolformer_m12": {**_WIDE, "norm_first": True},
}
