"""Augmentation on the accelerator: colour jitter and random erasing, one key per image.

    augment = Augment(brightness=0.4, contrast=0.4, saturation=0.4)
    images = jax.jit(augment)(images, keys)  # float32 in [0, 1], in and out

Pure functions of (image, key): the result for an image does not depend on its place in
the batch, on the batch's size or on the number of devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from robustvit.types import Images, Keys

GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow and torchvision

# timm's RandomErasing, as the recipes use it.
ERASED_AREA = (0.02, 1 / 3)  # part of the image
ERASED_ASPECT = (0.3, 3.3)  # height / width
NUM_TRIES = 10
NOISE_MEAN, NOISE_STD = 0.5, 0.25


@dataclass(frozen=True)
class Augment:
    """What is done to a training batch; all zero is the identity.

    Args:
      brightness, contrast, saturation: strengths of `color_jitter`.
      erasing: probability of `random_erasing`.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise ValueError(f"got {name}={getattr(self, name)}, wanted at least 0")
        if not 0 <= self.erasing <= 1:
            raise ValueError(f"got erasing={self.erasing}, wanted it in [0, 1]")

    def __call__(self, images: Images, keys: Keys) -> Images:
        """Jitters, then erases."""
        k_jitter, k_erase = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        if self.brightness or self.contrast or self.saturation:
            images = color_jitter(
                images,
                k_jitter,
                brightness=self.brightness,
                contrast=self.contrast,
                saturation=self.saturation,
            )
        if self.erasing:
            images = random_erasing(images, k_erase, probability=self.erasing)
        return images


def color_jitter(
    images: Images,
    keys: Keys,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
) -> Images:
    """Brightness, contrast and saturation by random factors, in a random order.

    Each factor is uniform in [max(0, 1 - strength), 1 + strength]. As torchvision's
    ColorJitter without hue, on floats instead of rounded bytes.
    """
    strengths = jnp.array([brightness, contrast, saturation])

    def jitter(image, key):
        k_order, k_factor = jax.random.split(key)
        low = jnp.maximum(0, 1 - strengths)
        factors = jax.random.uniform(k_factor, (3,), minval=low, maxval=1 + strengths)
        for op in jax.random.permutation(k_order, 3):
            red, green, blue = (image[..., i, None] for i in range(3))
            grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue
            # All three blend with another image: black, the mean grey, or the grey.
            # A select, because a branch under vmap would compute all sides anyway.
            other = jnp.select([op == 0, op == 1], [jnp.zeros(()), grey.mean()], grey)
            image = jnp.clip(factors[op] * image + (1 - factors[op]) * other, 0, 1)
        return image

    return jax.vmap(jitter)(images, keys)


def random_erasing(images: Images, keys: Keys, *, probability: float) -> Images:
    """Noise in a random rectangle of a part of the images.

    The noise is per pixel and channel, normal(0.5, 0.25) truncated to [0, 1].
    Reference: Zhong et al. 2017, arXiv:1708.04896; the "pixel" mode of timm.
    """

    def erase(image, key):
        k_apply, k_box, k_noise = jax.random.split(key, 3)
        height, width, _ = image.shape
        inside = _rectangle(k_box, height, width)[..., None]
        apply = jax.random.bernoulli(k_apply, probability)
        limit = NOISE_MEAN / NOISE_STD  # where the noise reaches 0 and 1
        unit = jax.random.truncated_normal(k_noise, -limit, limit, image.shape)
        return jnp.where(inside & apply, NOISE_MEAN + NOISE_STD * unit, image)

    return jax.vmap(erase)(images, keys)


def _rectangle(key: Key[Array, ""], height: int, width: int) -> Bool[Array, "h w"]:
    """Mask of the first of ten random rectangles that fits; empty if none does."""
    k_area, k_aspect, k_top, k_left = jax.random.split(key, 4)
    low, high = ERASED_AREA
    area = jax.random.uniform(k_area, (NUM_TRIES,), minval=low, maxval=high)
    log_low, log_high = (math.log(aspect) for aspect in ERASED_ASPECT)
    aspect = jnp.exp(
        jax.random.uniform(k_aspect, (NUM_TRIES,), minval=log_low, maxval=log_high)
    )
    heights = jnp.round(jnp.sqrt(area * height * width * aspect))
    widths = jnp.round(jnp.sqrt(area * height * width / aspect))
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    h, w = heights[first].astype(int), widths[first].astype(int)
    top = jax.random.randint(k_top, (), 0, height - h + 1)
    left = jax.random.randint(k_left, (), 0, width - w + 1)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
    in_rows = (rows >= top) & (rows < top + h)
    in_columns = (columns >= left) & (columns < left + w)
    return in_rows & in_columns & fits.any()
