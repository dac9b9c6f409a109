"""WideResNet for 32-pixel images, in the layout of TRADES and RobustBench.

    model = create_model("wide_resnet_28_10", num_classes=10)

TRADES' own files also hold a `sub_block1`, which nothing reads: leave it out.

References: Zagoruyko & Komodakis 2016, arXiv:1605.07146; Zhang et al. 2019,
arXiv:1901.08573 (TRADES).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from robustvit.models.convolutions import (
    Maps,
    MapsOut,
    classify,
    conv,
    pool,
    settled,
)
from robustvit.models.layers import BatchNorm, Normalize
from robustvit.types import Inputs, Outputs

STEM_WIDTH = 16


class WideResNet(nn.Module):
    """Pre-activation residual network of three groups of blocks.

    Attributes:
      num_classes: outputs of the head; 0 for none (logits are pooled features then).
      depth: convolutions along the main path, 6 n + 4.
      width: factor on 16, 32 and 64 channels.
      mean, std: input normalisation of a new model.
      bn_group: examples per group of batch statistics, None for the whole batch.
      remat: recompute each block in the backward pass instead of storing it.
      dtype: of the computation; parameters, statistics, pooling and head are float32.
    """

    num_classes: int = 10
    depth: int = 28
    width: int = 10
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    bn_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Inputs, *, train: bool = False) -> Outputs:
        """Images (b, h, w, 3) in [0, 1]; `features` are the maps before pooling.

        `hidden` holds the maps after each block.
        """
        if (self.depth - 4) % 6:
            raise ValueError(f"depth={self.depth} must be 6 n + 4")
        x = Normalize(self.mean, self.std, name="normalize")(images).astype(self.dtype)
        x = conv(STEM_WIDTH, 3, self.dtype, name="conv1")(x)
        hidden = []
        for i in range(3):
            maps = Group(
                width=STEM_WIDTH * 2**i * self.width,
                depth=(self.depth - 4) // 6,
                stride=2 if i else 1,
                bn_group=self.bn_group,
                remat=self.remat,
                dtype=self.dtype,
                name=f"block{i + 1}",
            )(x, train)
            hidden.extend(maps)
            x = maps[-1]
        x = nn.relu(BatchNorm(self.bn_group, self.dtype, name="bn1")(x, train=train))
        logits = classify(
            pool(x), self.num_classes, name="fc", bias_init=nn.initializers.zeros
        )
        features = x.astype(jnp.float32)
        return Outputs(logits=logits, features=features, hidden=tuple(hidden))


class Group(nn.Module):
    """Blocks of one width; the first may stride."""

    width: int
    depth: int
    stride: int
    bn_group: int | None
    remat: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> list[MapsOut]:
        """Maps after each block."""
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        outputs = []
        for i in range(self.depth):
            stride = self.stride if i == 0 else 1
            x = block(self.width, stride, self.bn_group, self.dtype, name=f"layer_{i}")(
                x, train
            )
            outputs.append(x)
        return outputs


class Block(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice.

    A block that changes the width projects the activated maps; any other adds its raw
    input.
    """

    width: int
    stride: int
    bn_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> MapsOut:
        """(b, h, w, c) to (b, h / stride, w / stride, width)."""
        norm = partial(BatchNorm, self.bn_group, self.dtype)
        y = nn.relu(norm(name="bn1")(x, train=train))
        if x.shape[-1] != self.width:
            x = conv(
                self.width, 1, self.dtype, stride=self.stride, name="convShortcut"
            )(y)
        y = conv(self.width, 3, self.dtype, stride=self.stride, name="conv1")(y)
        y = nn.relu(norm(name="bn2")(y, train=train))
        y = conv(self.width, 3, self.dtype, name="conv2")(y)
        return settled(self, x + y)


VARIANTS: dict[str, dict[str, Any]] = {
    f"wide_resnet_{depth}_{width}": {"depth": depth, "width": width}
    for depth, width in ((28, 10), (34, 10), (34, 20), (70, 16), (106, 16))
}
