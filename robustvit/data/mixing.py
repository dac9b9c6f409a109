"""MixUp and CutMix on the accelerator: images of a batch mixed in pairs, soft targets.

    mixing = Mixing(num_classes=1000, mixup=0.8, cutmix=1.0)
    images, targets = jax.jit(mixing)(images, labels, key)  # targets (b, 1000)

timm's "batch" mode: one draw for a whole batch, and the partner of an image is its
mirror in the batch, the last for the first. A function of the key and the batch alone,
however many devices hold it.
References: Zhang et al. 2017, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from robustvit.types import Images, Labels, Targets


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed.

    Args:
      num_classes: of the targets.
      mixup, cutmix: parameter of the symmetric Beta distribution of an image's share in
        its mixture; 0 for never. With both, each batch gets one of them.
      prob: that a batch is mixed at all.
      switch_prob: of CutMix, where both are on.
      label_smoothing: spread over all classes of the targets, the true one included.
    """

    num_classes: int
    mixup: float = 0.0
    cutmix: float = 0.0
    prob: float = 1.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"got {name}={getattr(self, name)}, wanted at least 0")
        if self.mixup == self.cutmix == 0:
            raise ValueError("got mixup=0 and cutmix=0, wanted one of them above 0")
        for name in ("prob", "switch_prob", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"got {name}={getattr(self, name)}, wanted it in [0, 1]"
                )
        if self.num_classes < 1:
            raise ValueError(f"got num_classes={self.num_classes}, wanted at least 1")

    def __call__(
        self, images: Images, labels: Labels, key: Key[Array, ""]
    ) -> tuple[Images, Targets]:
        """Mixed images and their targets, which sum to one."""
        b, height, width, _ = images.shape
        if b % 2:
            raise ValueError(
                f"got a batch of {b} images, wanted an even number: they mix in pairs"
            )
        keep, share = self.draw(key, height, width)
        # Exact where `keep` is 0 or 1: CutMix copies pixels.
        keep = keep[..., None]
        images = keep * images + (1 - keep) * images[::-1]
        targets = self.targets(labels)
        return images, share * targets + (1 - share) * targets[::-1]

    def targets(self, labels: Labels) -> Targets:
        """Smoothed, not yet mixed."""
        off = self.label_smoothing / self.num_classes
        on = 1.0 - self.label_smoothing + off
        return off + (on - off) * jax.nn.one_hot(labels, self.num_classes)

    def draw(
        self, key: Key[Array, ""], height: int, width: int
    ) -> tuple[Float[Array, "h w"], Float[Array, ""]]:
        """Of each pixel and of the target: how much an image keeps of its own."""
        k_mix, k_switch, k_share, k_row, k_column = jax.random.split(key, 5)
        if self.mixup and self.cutmix:
            is_cutmix = jax.random.bernoulli(k_switch, self.switch_prob)
        else:
            is_cutmix = jnp.array(self.cutmix > 0)
        alpha = jnp.where(is_cutmix, self.cutmix, self.mixup)
        drawn = jax.random.beta(k_share, alpha, alpha)
        # A share of one is no MixUp, and a box without pixels.
        share = jnp.where(jax.random.bernoulli(k_mix, self.prob), drawn, 1.0)
        row = jax.random.randint(k_row, (), 0, height)
        column = jax.random.randint(k_column, (), 0, width)
        outside = 1.0 - box(share, row, column, height=height, width=width)
        keep = jnp.where(is_cutmix, outside, share)
        return keep, jnp.where(is_cutmix, outside.mean(), share)


def box(
    share: Float[Array, ""],
    row: Int[Array, ""],
    column: Int[Array, ""],
    *,
    height: int,
    width: int,
) -> Float[Array, "h w"]:
    """1 in a box around (row, column) of about `1 - share` of the image, 0 outside.

    What hangs over the border is cut off, so the box may be smaller.
    """

    def inside(centre, size):
        length = jnp.floor(size * jnp.sqrt(1.0 - share)).astype(jnp.int32)
        first, place = centre - length // 2, jnp.arange(size)
        return (place >= first) & (place < first + length)

    rows, columns = inside(row, height), inside(column, width)
    return (rows[:, None] & columns).astype(jnp.float32)
