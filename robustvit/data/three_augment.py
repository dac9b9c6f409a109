"""3-Augment, of DeiT III: grey, or solarized, or blurred, one of them for every image.

    pixels = ThreeAugment()(pixels, np.random.default_rng(0))

Meant for after the crop and the flip; the recipe's colour jitter of 0.3 comes after it,
on the device (`augment.Augment`).
Reference: Touvron, Cord, Jégou 2022, arXiv:2204.07118, section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from robustvit.data.images import Pixels, Raw, decode

SOLARIZE_FROM = 128  # levels from here on are inverted


@dataclass(frozen=True)
class ThreeAugment:
    """One of three, each as likely.

    Args:
      radius: range of the Gaussian's standard deviation in pixels.
    """

    radius: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        """Checks the range."""
        low, high = self.radius
        if not 0 <= low <= high:
            raise ValueError(f"got radius={self.radius}, wanted 0 <= low <= high")

    def __call__(self, image: Raw, rng: np.random.Generator) -> Pixels:
        """Draws one and does it."""
        picture = Image.fromarray(decode(image))
        kind, radius = rng.integers(3), rng.uniform(*self.radius)
        if kind == 0:
            picture = picture.convert("L").convert("RGB")
        elif kind == 1:
            picture = ImageOps.solarize(picture, SOLARIZE_FROM)
        else:
            picture = picture.filter(ImageFilter.GaussianBlur(radius))
        return np.asarray(picture)
