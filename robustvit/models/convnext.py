"""ConvNeXt, with its stem of one 4x4 convolution or with a convolutional one (CvSt).

    model = create_model("convnext_tiny_cvst", num_classes=1000)

The convolutional stem replaces 4x4 patches by two or three 3x3 convolutions, each with
LayerNorm and GELU, to the same resolution; adversarial training gains a point from it.
Names are timm's; the convolutional stem is numbered as in an `nn.Sequential` of
[conv, LayerNorm, GELU] * n: stem.0, stem.1, stem.3, stem.4, stem.6, stem.7.

References: Liu et al. 2022, arXiv:2201.03545; Singh, Croce & Hein 2023,
arXiv:2303.01870 (the convolutional stem).
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
    Mlp,
    Normalize,
    gelu,
    linear_init,
    materialize,
)
from robustvit.models.statistics import IMAGENET
from robustvit.types import AnyArray, Inputs, Outputs

LAYER_SCALE = 1e-6  # at any depth

_conv = partial(conv, bias=True, init=linear_init)


class ConvNeXt(nn.Module):
    """Four stages of depthwise 7x7 convolutions and pointwise MLPs.

    Attributes:
      num_classes: outputs of the head; 0 for none (logits are pooled features then).
      depths: blocks per stage.
      widths: channels of the stages.
      stem_widths: of the convolutional stem's 3x3 convolutions, the first two at stride
        2; empty for a 4x4 convolution at stride 4.
      drop_path: rate of stochastic depth in the last block, rising linearly from 0.
      mean, std: input normalisation of a new model.
      remat: recompute each block in the backward pass instead of storing it.
      dtype: of the computation; parameters, final norm and head are float32.
    """

    num_classes: int = 1000
    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    stem_widths: tuple[int, ...] = ()
    drop_path: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Inputs, *, train: bool = False) -> Outputs:
        """Images (b, h, w, 3) in [0, 1]; `features` are the maps before pooling.

        The last norm follows the pooling. `hidden` holds the maps after each block.
        """
        x = Normalize(self.mean, self.std, name="normalize")(images).astype(self.dtype)
        x = self._stem(x)
        rates = linear_drop_path(self.drop_path, sum(self.depths))
        hidden = []
        for i, depth in enumerate(self.depths):
            maps = Stage(
                width=self.widths[i],
                downsample=i > 0,
                drop_path=rates[len(hidden) : len(hidden) + depth],
                remat=self.remat,
                dtype=self.dtype,
                name=f"stages_{i}",
            )(x, train)
            hidden.extend(maps)
            x = maps[-1]
        logits = Head(self.num_classes, name="head")(x)
        features = x.astype(jnp.float32)
        return Outputs(logits=logits, features=features, hidden=tuple(hidden))

    def _stem(self, x):
        norm = partial(LayerNorm, dtype=self.dtype)
        if not self.stem_widths:
            x = _conv(
                self.widths[0], 4, self.dtype, stride=4, padding=0, name="stem_0"
            )(x)
            return norm(name="stem_1")(x)
        for i, width in enumerate(self.stem_widths):
            stride = 2 if i < 2 else 1
            x = _conv(width, 3, self.dtype, stride=stride, name=f"stem_{3 * i}")(x)
            x = gelu(norm(name=f"stem_{3 * i + 1}")(x))
        return x


class Stage(nn.Module):
    """Blocks of one width, after a LayerNorm and a 2x2 convolution at stride 2."""

    width: int
    downsample: bool
    drop_path: tuple[float, ...]
    remat: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> list[MapsOut]:
        """Maps after each block."""
        if self.downsample:
            x = LayerNorm(dtype=self.dtype, name="downsample_0")(x)
            x = _conv(
                self.width, 2, self.dtype, stride=2, padding=0, name="downsample_1"
            )(x)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        outputs = []
        for i, rate in enumerate(self.drop_path):
            x = block(rate, self.dtype, name=f"blocks_{i}")(x, train)
            outputs.append(x)
        return outputs


class Block(nn.Module):
    """Depthwise 7x7 convolution, LayerNorm, MLP, LayerScale, added to the input."""

    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """(b, h, w, c) to (b, h, w, c)."""
        b, h, w, c = x.shape
        y = _conv(c, 7, self.dtype, groups=c, name="conv_dw")(x)
        y = LayerNorm(dtype=self.dtype, name="norm")(y)
        y = Mlp(self.dtype, name="mlp")(y.reshape(b, h * w, c)).reshape(x.shape)
        gamma = self.param("gamma", nn.initializers.constant(LAYER_SCALE), (c,))
        y = DropPath(self.drop_path)(y * gamma.astype(self.dtype), train=train)
        return materialize(x + y, gamma)


class Head(nn.Module):
    """Mean over positions, LayerNorm, linear layer; in float32."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Maps) -> Float[AnyArray, "b k"]:
        """(b, h, w, c) to logits (b, num_classes)."""
        pooled = LayerNorm(name="norm")(pool(x))
        return classify(
            pooled,
            self.num_classes,
            name="fc",
            init=linear_init,
            bias_init=nn.initializers.zeros,
        )


_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"depths": (3, 3, 27, 3)},
    "base": {"depths": (3, 3, 27, 3), "widths": (128, 256, 512, 1024)},
    "large": {"depths": (3, 3, 27, 3), "widths": (192, 384, 768, 1536)},
}
_STEMS: dict[str, tuple[int, ...]] = {
    "tiny": (48, 96),
    "small": (48, 96),
    "base": (64, 96, 128),
    "large": (96, 144, 192),
}

VARIANTS: dict[str, dict[str, Any]] = {
    **{f"convnext_{size}": {**fields, **IMAGENET} for size, fields in _SIZES.items()},
    # Their authors train on [0, 1] as it is.
    **{
        f"convnext_{size}_cvst": {**fields, "stem_widths": _STEMS[size]}
        for size, fields in _SIZES.items()
    },
}
