"""PreActResNet-18 for 32-pixel images, in RobustBench's layout.

    model = create_model("preact_resnet18", num_classes=10)

The layout of most published 32-pixel ResNets-18: nothing normalises or activates the
last maps before they are pooled, and shortcuts project the raw input.

Reference: He et al. 2016, arXiv:1603.05027.
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
from robustvit.models.layers import BatchNorm, Normalize, torch_conv_init
from robustvit.types import Inputs, Outputs

# Its authors leave torch's own initialisation.
_conv = partial(conv, init=torch_conv_init)


class PreActResNet(nn.Module):
    """Pre-activation residual network of four stages of basic blocks.

    Attributes:
      num_classes: outputs of the head; 0 for none (logits are pooled features then).
      layers: blocks per stage.
      widths: channels of the stages; those of the first are the stem's, too.
      mean, std: input normalisation of a new model.
      bn_group: examples per group of batch statistics, None for the whole batch.
      remat: recompute each block in the backward pass instead of storing it.
      dtype: of the computation; parameters, statistics, pooling and head are float32.
    """

    num_classes: int = 10
    layers: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
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
        x = Normalize(self.mean, self.std, name="normalize")(images).astype(self.dtype)
        x = _conv(self.widths[0], 3, self.dtype, name="conv1")(x)
        block = (
            nn.remat(PreActBlock, static_argnums=(2,)) if self.remat else PreActBlock
        )
        hidden = []
        for stage, depth in enumerate(self.layers):
            for i in range(depth):
                x = block(
                    self.widths[stage],
                    2 if stage and i == 0 else 1,
                    self.bn_group,
                    self.dtype,
                    name=f"layer{stage + 1}_{i}",
                )(x, train)
                hidden.append(x)
        logits = classify(pool(x), self.num_classes, name="linear")
        features = x.astype(jnp.float32)
        return Outputs(logits=logits, features=features, hidden=tuple(hidden))


class PreActBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice; the raw input is added or projected."""

    width: int
    stride: int
    bn_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> MapsOut:
        """(b, h, w, c) to (b, h / stride, w / stride, width)."""
        norm = partial(BatchNorm, self.bn_group, self.dtype)
        y = nn.relu(norm(name="bn1")(x, train=train))
        if self.stride != 1 or x.shape[-1] != self.width:
            x = _conv(self.width, 1, self.dtype, stride=self.stride, name="shortcut_0")(
                x
            )
        y = _conv(self.width, 3, self.dtype, stride=self.stride, name="conv1")(y)
        y = nn.relu(norm(name="bn2")(y, train=train))
        y = _conv(self.width, 3, self.dtype, name="conv2")(y)
        return settled(self, x + y)


VARIANTS: dict[str, dict[str, Any]] = {"preact_resnet18": {}}
