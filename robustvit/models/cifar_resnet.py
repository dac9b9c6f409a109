"""He et al.'s 6n + 2 ResNets for CIFAR-10, without parameters in their shortcuts.

    model = create_model("cifar_resnet20", num_classes=10)

Names are those of akamaster's `pytorch_resnet_cifar10`, whose weights are published.

Reference: He et al. 2016, arXiv:1512.03385, section 4.2 (shortcuts: option A).
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
from robustvit.models.statistics import IMAGENET
from robustvit.types import Inputs, Outputs

_he_init = nn.initializers.he_normal()  # by fan-in; the head is drawn alike
_conv = partial(conv, init=_he_init)


class CifarResNet(nn.Module):
    """Residual network of three stages of basic blocks.

    Attributes:
      num_classes: outputs of the head; 0 for none (logits are pooled features then).
      depth: layers with weights along the main path, 6 n + 2.
      mean, std: input normalisation of a new model; the publisher's is ImageNet's.
      bn_group: examples per group of batch statistics, None for the whole batch.
      remat: recompute each block in the backward pass instead of storing it.
      dtype: of the computation; parameters, statistics, pooling and head are float32.
    """

    num_classes: int = 10
    depth: int = 20
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    bn_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Inputs, *, train: bool = False) -> Outputs:
        """Images (b, h, w, 3) in [0, 1]; `features` are the maps before pooling.

        `hidden` holds the maps after each block.
        """
        if (self.depth - 2) % 6:
            raise ValueError(f"depth={self.depth} must be 6 n + 2")
        x = Normalize(self.mean, self.std, name="normalize")(images).astype(self.dtype)
        x = _conv(16, 3, self.dtype, name="conv1")(x)
        x = nn.relu(BatchNorm(self.bn_group, self.dtype, name="bn1")(x, train=train))
        block = nn.remat(BasicBlock, static_argnums=(2,)) if self.remat else BasicBlock
        hidden = []
        for stage in range(3):
            for i in range((self.depth - 2) // 6):
                x = block(
                    16 * 2**stage,
                    2 if stage and i == 0 else 1,
                    self.bn_group,
                    self.dtype,
                    name=f"layer{stage + 1}_{i}",
                )(x, train)
                hidden.append(x)
        logits = classify(pool(x), self.num_classes, name="linear", init=_he_init)
        features = x.astype(jnp.float32)
        return Outputs(logits=logits, features=features, hidden=tuple(hidden))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes, the input is cut and padded."""

    width: int
    stride: int
    bn_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> MapsOut:
        """(b, h, w, c) to (b, h / stride, w / stride, width)."""
        norm = partial(BatchNorm, self.bn_group, self.dtype)
        y = _conv(self.width, 3, self.dtype, stride=self.stride, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y, train=train))
        y = _conv(self.width, 3, self.dtype, name="conv2")(y)
        y = norm(name="bn2")(y, train=train)
        if self.stride != 1 or x.shape[-1] != self.width:
            new = (self.width - x.shape[-1]) // 2  # channels of zeros, on either side
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new, new)))
        return settled(self, nn.relu(y + x))


VARIANTS: dict[str, dict[str, Any]] = {
    f"cifar_resnet{depth}": {"depth": depth, **IMAGENET}
    for depth in (20, 32, 44, 56, 110)
}
