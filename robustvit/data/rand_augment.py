"""RandAugment as timm has it, on the host: rand-m9-mstd0.5-inc1 and its relatives.

    policy = parse_rand_augment("rand-m9-mstd0.5-inc1")
    pixels = policy(pixels, np.random.default_rng(0))  # uint8 in, uint8 out

Each of `num_layers` operations is drawn from 15, takes place with a probability, and
has a magnitude from 0 to 10 of its own. Meant for after the crop and the flip.

The golden images are timm 1.0.31's. Where it posterizes to no bits at all (magnitude
10, one image in 650 at m9) today's Pillow raises an error; here the image goes black,
as it did when the recipes were run.

Reference: Cubuk et al. 2019, arXiv:1909.13719.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from robustvit.data.images import FILTERS, Pixels, Raw, decode

MAX_MAGNITUDE = 10.0
MEAN_COLOUR = (124, 116, 104)  # of ImageNet; fills what a warp leaves empty
RANDOM_FILTERS = ("bilinear", "bicubic")  # what interpolation="random" draws from

# timm's ranges, reached at magnitude 10.
MAX_DEGREES = 30.0
MAX_SHEAR = 0.3
MAX_SHIFT = 0.45  # part of the side
MAX_ADDED = 110  # to pixels below 128
POSTERIZED_BITS = 4


class Step(NamedTuple):
    """One operation with everything random about it drawn."""

    name: str
    magnitude: float  # 0 to 10
    sign: int = 1  # of operations that go both ways
    filter: str = "bicubic"  # of operations that move pixels


# (image, magnitude / 10, step, fill) -> image
Operation = Callable[[Image.Image, float, Step, tuple[int, int, int]], Image.Image]


def _rotate(image, level, step, fill):
    degrees = step.sign * level * MAX_DEGREES
    return image.rotate(degrees, FILTERS[step.filter], fillcolor=fill)


def _warp(image, matrix, step, fill):
    """Takes the pixel at (x, y) from where the 2x3 matrix sends it."""
    affine, filter_ = Image.Transform.AFFINE, FILTERS[step.filter]
    return image.transform(image.size, affine, matrix, filter_, fillcolor=fill)


def _shear_x(image, level, step, fill):
    slope = step.sign * level * MAX_SHEAR
    return _warp(image, (1, slope, 0, 0, 1, 0), step, fill)


def _shear_y(image, level, step, fill):
    slope = step.sign * level * MAX_SHEAR
    return _warp(image, (1, 0, 0, slope, 1, 0), step, fill)


def _translate_x(image, level, step, fill):
    shift = step.sign * level * MAX_SHIFT * image.width
    return _warp(image, (1, 0, shift, 0, 1, 0), step, fill)


def _translate_y(image, level, step, fill):
    shift = step.sign * level * MAX_SHIFT * image.height
    return _warp(image, (1, 0, 0, 0, 1, shift), step, fill)


def _posterize(image, bits):
    keep = 256 - 2 ** (8 - bits)  # as a mask of 8 bits: 0 bits keep nothing
    return image.point([value & keep for value in range(256)] * 3)


def _posterize_less(image, level, step, fill):
    return _posterize(image, int(level * POSTERIZED_BITS))


def _posterize_more(image, level, step, fill):
    return _posterize(image, POSTERIZED_BITS - int(level * POSTERIZED_BITS))


def _solarize_less(image, level, step, fill):
    return ImageOps.solarize(image, int(level * 256))


def _solarize_more(image, level, step, fill):
    return ImageOps.solarize(image, 256 - int(level * 256))


def _solarize_add(image, level, step, fill):
    added = int(level * MAX_ADDED)
    table = [min(255, v + added) if v < 128 else v for v in range(256)]
    return image.point(table * 3)


def _without_magnitude(change: Callable[[Image.Image], Image.Image]) -> Operation:
    return lambda image, level, step, fill: change(image)


def _enhance(kind) -> Operation:
    """From a tenth to nearly double: no change in the middle of the magnitudes."""
    return lambda image, level, step, fill: kind(image).enhance(level * 1.8 + 0.1)


def _enhance_more(kind) -> Operation:
    """Up or down from no change, at most as far as `_enhance`."""

    def operation(image, level, step, fill):
        return kind(image).enhance(max(0.1, 1.0 + step.sign * (level * 0.9)))

    return operation


_ENHANCERS = {
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Brightness": ImageEnhance.Brightness,
    "Sharpness": ImageEnhance.Sharpness,
}
OPERATIONS: dict[str, Operation] = {
    "AutoContrast": _without_magnitude(ImageOps.autocontrast),
    "Equalize": _without_magnitude(ImageOps.equalize),
    "Invert": _without_magnitude(ImageOps.invert),
    "Rotate": _rotate,
    "Posterize": _posterize_less,
    "PosterizeIncreasing": _posterize_more,
    "Solarize": _solarize_less,
    "SolarizeIncreasing": _solarize_more,
    "SolarizeAdd": _solarize_add,
    **{name: _enhance(kind) for name, kind in _ENHANCERS.items()},
    **{f"{name}Increasing": _enhance_more(kind) for name, kind in _ENHANCERS.items()},
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateXRel": _translate_x,
    "TranslateYRel": _translate_y,
}

_COMMON = ("AutoContrast", "Equalize", "Invert", "Rotate", "SolarizeAdd",
           "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")  # fmt: skip
_VARIED = ("Posterize", "Solarize", *_ENHANCERS)
PLAIN = (*_COMMON, *_VARIED)  # without "inc1": some grow weaker with the magnitude
INCREASING = (*_COMMON, *(f"{name}Increasing" for name in _VARIED))


def apply_step(
    pixels: Pixels, step: Step, fill: tuple[int, int, int] = MEAN_COLOUR
) -> Pixels:
    """The image after one operation; nothing random is left in it."""
    operation = OPERATIONS[step.name]
    level = step.magnitude / MAX_MAGNITUDE
    return np.asarray(operation(Image.fromarray(pixels), level, step, fill))


@dataclass(frozen=True)
class RandAugment:
    """Some operations in a row, each drawn with its magnitude.

    Args:
      magnitude: mean of the magnitudes, 0 to 10.
      magnitude_std: of a normal distribution around it, cut to 0 to 10.
      num_layers: operations drawn, the same one perhaps twice.
      probability: that a drawn one takes place.
      operations: names to draw from, `INCREASING` or `PLAIN`.
      interpolation: "bicubic", "bilinear", or "random": one of them for each operation.
      fill: colour of what a warp leaves empty.
    """

    magnitude: float = 9.0
    magnitude_std: float = 0.5
    num_layers: int = 2
    probability: float = 0.5
    operations: tuple[str, ...] = INCREASING
    interpolation: str = "bicubic"
    fill: tuple[int, int, int] = MEAN_COLOUR

    def __post_init__(self) -> None:
        """Checks the ranges and the names."""
        _check("magnitude", self.magnitude, 0.0, MAX_MAGNITUDE)
        _check(
            "magnitude_std", self.magnitude_std, 0.0, 100.0
        )  # above, timm's is uniform
        _check("probability", self.probability, 0.0, 1.0)
        if self.num_layers < 1:
            raise ValueError(f"got num_layers={self.num_layers}, wanted at least 1")
        known = ("random", *RANDOM_FILTERS)
        if self.interpolation not in known:
            raise ValueError(
                f"got interpolation={self.interpolation!r}, wanted one of {[*known]}"
            )
        unknown = sorted(set(self.operations) - set(OPERATIONS))
        if unknown or not self.operations:
            raise ValueError(
                f"got operations={self.operations}, wanted some of {[*OPERATIONS]}"
            )

    def __call__(self, image: Raw, rng: np.random.Generator) -> Pixels:
        """Draws the steps and takes them."""
        pixels = decode(image)
        for step in self.draw(rng):
            pixels = apply_step(pixels, step, self.fill)
        return pixels

    def draw(self, rng: np.random.Generator) -> list[Step]:
        """The steps that take place."""
        drawn = rng.integers(len(self.operations), size=self.num_layers)
        taking_place = rng.random(self.num_layers) < self.probability
        return [self._step(self.operations[i], rng) for i in drawn[taking_place]]

    def _step(self, name: str, rng: np.random.Generator) -> Step:
        magnitude = rng.normal(self.magnitude, self.magnitude_std)
        magnitude = min(max(magnitude, 0.0), MAX_MAGNITUDE)
        sign = 1 if rng.random() < 0.5 else -1
        filters = {"random": RANDOM_FILTERS}.get(
            self.interpolation, (self.interpolation,)
        )
        return Step(name, magnitude, sign, filters[rng.integers(len(filters))])


def parse_rand_augment(text: str) -> RandAugment:
    """Reads timm's notation: rand-m9-mstd0.5-inc1, in any order after "rand".

    The sections: m, the magnitude (10); mstd, its standard deviation (0); inc, 1 for
    operations that grow stronger with the magnitude (0); n, the number of operations
    (2); p, the probability of each (0.5). In brackets, what a missing one means.

    Raises:
      ValueError: for another section, one that comes twice, or a number out of range.
    """
    sections = {"m": 10.0, "mstd": 0.0, "inc": 0.0, "n": 2.0, "p": 0.5}
    head, *words = text.split("-")
    if head != "rand":
        raise ValueError(f"got policy {text!r}, wanted it to begin with rand-")
    seen: set[str] = set()
    for word in words:
        match = re.fullmatch(r"([a-z]+)(\d+\.?\d*|\.\d+)", word)
        if match is None or match[1] not in sections:
            raise ValueError(
                f"got {word!r} in policy {text!r}, wanted one of "
                f"{', '.join(sections)} and a number, as in rand-m9-mstd0.5-inc1"
            )
        if match[1] in seen:
            raise ValueError(f"got {match[1]} twice in policy {text!r}")
        seen.add(match[1])
        sections[match[1]] = float(match[2])
    if sections["inc"] not in (0, 1) or sections["n"] % 1:
        raise ValueError(f"got policy {text!r}, wanted inc0 or inc1, and a whole n")
    return RandAugment(
        magnitude=sections["m"],
        magnitude_std=sections["mstd"],
        num_layers=int(sections["n"]),
        probability=sections["p"],
        operations=INCREASING if sections["inc"] else PLAIN,
    )


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"got {name}={value}, wanted it in [{low:g}, {high:g}]")
