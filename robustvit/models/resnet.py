"""ResNet v1.5, wide ResNet and ResNeXt, with timm's names; ReLU, GELU or SiLU.

v1.5 strides in the 3x3 convolution of a bottleneck, not in the first 1x1. The smooth
activations are those of adversarially trained ResNets: gradients that an attack can
follow. `resnet50_gelu_adv` is what the network of Bai et al. computes at evaluation,
where each of its eight-fold BatchNorms is one (`robustvit.interop.eight_bn`).

    model = create_model("resnet50_gelu", num_classes=1000)

References: He et al. 2016, arXiv:1512.03385; Xie et al. 2017, arXiv:1611.05431;
Zagoruyko & Komodakis 2016, arXiv:1605.07146; Xie et al. 2020, arXiv:2006.14536 (smooth
activations); Bai et al. 2021, arXiv:2111.05464.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from robustvit import lookup
from robustvit.models.convolutions import (
    ACTIVATIONS,
    Maps,
    MapsOut,
    classify,
    conv,
    linear_drop_path,
    pool,
    settled,
)
from robustvit.models.layers import BatchNorm, DropPath, Normalize
from robustvit.models.statistics import HALF, IMAGENET
from robustvit.types import Inputs, Outputs

STEM_WIDTH = 64


class ResNet(nn.Module):
    """Residual network of four stages, each at half the resolution of the one before.

    Attributes:
      num_classes: outputs of the head; 0 for none (logits are pooled features then).
      layers: blocks per stage.
      widths: of the stages; bottlenecks put out four times as many channels.
      block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1).
      stem: "imagenet" (7x7 at stride 2, then max-pooling) or "small" (3x3 at stride 1
        and no pooling, for images of 32 pixels).
      cardinality, base_width: a bottleneck's 3x3 has `cardinality` groups of
        `base_width` channels per 64 of its stage's width.
      activation: "relu", "gelu" (exact) or "silu".
      drop_path: rate of stochastic depth in the last block, rising linearly from 0.
      mean, std: input normalisation of a new model.
      bn_group: examples per group of batch statistics, None for the whole batch.
      remat: recompute each block in the backward pass instead of storing it.
      dtype: of the computation; parameters, statistics, pooling and head are float32.
    """

    num_classes: int = 1000
    layers: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    block: str = "bottleneck"
    stem: str = "imagenet"
    cardinality: int = 1
    base_width: int = 64
    activation: str = "relu"
    drop_path: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    bn_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Checks the fields that are choices."""
        lookup.check("block", self.block, BLOCKS)
        lookup.check("stem", self.stem, STEMS)
        lookup.check("activation", self.activation, ACTIVATIONS)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Inputs, *, train: bool = False) -> Outputs:
        """Images (b, h, w, 3) in [0, 1]; `features` are the maps before pooling.

        `hidden` holds the maps after each block.
        """
        x = Normalize(self.mean, self.std, name="normalize")(images).astype(self.dtype)
        x = self._stem(x, train)

        block = self._blocks()
        rates = linear_drop_path(self.drop_path, sum(self.layers))
        hidden = []
        for stage, depth in enumerate(self.layers):
            for i in range(depth):
                x = block(
                    self.widths[stage],
                    stride=2 if stage and i == 0 else 1,
                    drop_path=rates[len(hidden)],
                    name=f"layer{stage + 1}_{i}",
                )(x, train)
                hidden.append(x)

        logits = classify(pool(x), self.num_classes, name="fc")
        features = x.astype(jnp.float32)
        return Outputs(logits=logits, features=features, hidden=tuple(hidden))

    def _stem(self, x, train):
        size, stride = STEMS[self.stem]
        x = conv(STEM_WIDTH, size, self.dtype, stride=stride, name="conv1")(x)
        x = BatchNorm(self.bn_group, self.dtype, name="bn1")(x, train=train)
        x = ACTIVATIONS[self.activation](x)
        if self.stem == "small":
            return x
        padding: Any = ((1, 1), (1, 1))  # flax declares a string only
        return nn.max_pool(x, (3, 3), (2, 2), padding)

    def _blocks(self):
        """Constructor of a block, given what differs between blocks."""
        block = BLOCKS[self.block]
        if self.remat:
            block = nn.remat(block, static_argnums=(2,))  # train, a Python bool
        return partial(
            block,
            groups=self.cardinality,
            group_width=self.base_width,
            activation=self.activation,
            bn_group=self.bn_group,
            dtype=self.dtype,
        )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    width: int
    groups: int
    group_width: int
    stride: int
    activation: str
    drop_path: float
    bn_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> MapsOut:
        """(b, h, w, c) to (b, h / stride, w / stride, width)."""
        act = ACTIVATIONS[self.activation]
        norm = partial(BatchNorm, self.bn_group, self.dtype)
        inner = self.width * self.group_width // STEM_WIDTH * self.groups
        y = conv(
            inner, 3, self.dtype, stride=self.stride, groups=self.groups, name="conv1"
        )(x)
        y = act(norm(name="bn1")(y, train=train))
        y = conv(self.width, 3, self.dtype, name="conv2")(y)
        y = norm(name="bn2", scale_init=nn.initializers.zeros)(y, train=train)
        y = DropPath(self.drop_path)(y, train=train)
        x = shortcut(x, y.shape[-1], self.stride, norm, train)
        return settled(self, act(y + x))


class Bottleneck(nn.Module):
    """1x1 convolution to `width` (or what groups make of it), 3x3, 1x1 to 4 width."""

    width: int
    groups: int
    group_width: int
    stride: int
    activation: str
    drop_path: float
    bn_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> MapsOut:
        """(b, h, w, c) to (b, h / stride, w / stride, 4 width)."""
        act = ACTIVATIONS[self.activation]
        norm = partial(BatchNorm, self.bn_group, self.dtype)
        inner = self.width * self.group_width // STEM_WIDTH * self.groups
        y = conv(inner, 1, self.dtype, name="conv1")(x)
        y = act(norm(name="bn1")(y, train=train))
        y = conv(
            inner, 3, self.dtype, stride=self.stride, groups=self.groups, name="conv2"
        )(y)
        y = act(norm(name="bn2")(y, train=train))
        y = conv(4 * self.width, 1, self.dtype, name="conv3")(y)
        y = norm(name="bn3", scale_init=nn.initializers.zeros)(y, train=train)
        y = DropPath(self.drop_path)(y, train=train)
        x = shortcut(x, y.shape[-1], self.stride, norm, train)
        return settled(self, act(y + x))


def shortcut(x: Maps, channels: int, stride: int, norm: Any, train: bool) -> MapsOut:
    """x itself, or projected where the block changes its shape; within a block."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    y = conv(channels, 1, x.dtype, stride=stride, name="downsample_0")(x)
    return norm(name="downsample_1")(y, train=train)


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}
STEMS = {"imagenet": (7, 2), "small": (3, 1)}  # kernel and stride

_18: dict[str, Any] = {"block": "basic", "layers": (2, 2, 2, 2)}
_152: dict[str, Any] = {"layers": (3, 8, 36, 3)}

VARIANTS: dict[str, dict[str, Any]] = {
    "resnet18": {**_18, **IMAGENET},
    "resnet50": IMAGENET,
    "resnet152": {**_152, **IMAGENET},
    "wide_resnet50_2": {"base_width": 128, **IMAGENET},
    # The recipe normalises its GELU ResNets, and only those, by 0.5 and 0.5.
    "resnet18_gelu": {**_18, "activation": "gelu", **HALF},
    "resnet50_gelu": {"activation": "gelu", **HALF},
    "resnet50_gelu_adv": {"activation": "gelu", **HALF},
    "resnet152_gelu": {**_152, "activation": "gelu", **HALF},
    "resnet50_32": {"stem": "small"},
    # Not the usual (3, 8, 36, 3): what the Light Recipe's repository has by this name.
    "resnext152_32x8d": {
        "layers": (3, 4, 36, 3),
        "cardinality": 32,
        "base_width": 8,
        "activation": "silu",
    },
}
