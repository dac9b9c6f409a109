"""Host transforms: one raw image to uint8 pixels of a fixed size.

    train = imagenet_train(224)
    pixels = train(jpeg_bytes, np.random.default_rng(0))  # uint8 (224, 224, 3)
    pixels = EvalTransform(224, crop_pct=0.875)(jpeg_bytes)

What is cheap on the accelerator (colour jitter, erasing) is in `augment`, not here. No
normalisation: models do their own, so that attacks act on [0, 1].
Reference: Debenedetti et al. 2022, arXiv:2209.07399 (timm's transforms in uint8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from PIL import Image

from robustvit.data.images import (
    FILTERS,
    Pixels,
    Raw,
    decode,
    jpeg_shape,
    resize_shorter_side,
)

NUM_TRIES = 10  # torchvision and timm, for a crop that fits


@runtime_checkable
class RandomOp(Protocol):
    """One random step on the host."""

    def __call__(self, image: Raw, rng: np.random.Generator) -> Pixels:
        """Bytes or pixels to pixels."""
        ...


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random box of the image, resized to a square.

    Args:
      size: side of the result.
      scale: range of the box's area, as a part of the image's. Areas above 1 never fit:
        with (0.8, 1.2), the CIFAR recipe, many crops are the fallback.
      ratio: range of the box's width / height, drawn log-uniformly.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        _check_size(self.size)
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(f"got {name}={(low, high)}, wanted 0 < low <= high")

    def __call__(self, image: Raw, rng: np.random.Generator) -> Pixels:
        """Crops, decoding no more of a JPEG than the crop needs."""
        shape = jpeg_shape(image)
        if shape is None:
            image = decode(image)
            shape = image.shape[:2]
        top, left, height, width = self.box(shape[0], shape[1], rng)
        pixels = decode(image, shrink=_shrink(min(height, width), self.size))
        if pixels.shape[:2] != shape:  # decoded at a reduced size: so is the box
            factor = pixels.shape[0] / shape[0]
            top, left, height, width = (
                round(side * factor) for side in (top, left, height, width)
            )
        crop = pixels[top : top + height, left : left + width]
        if crop.shape[:2] == (self.size, self.size):
            return crop
        # cv2 takes a third less time than Pillow and differs by 0.9 / 255 on average:
        # fine for training, not for evaluation. Area is its antialiased filter.
        shrinking = height * width > self.size**2
        filter_ = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
        return cv2.resize(crop, (self.size, self.size), interpolation=filter_)

    def box(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the crop, as torchvision draws it."""
        log_low, log_high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(NUM_TRIES):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(log_low, log_high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = rng.integers(height - h, endpoint=True)
                left = rng.integers(width - w, endpoint=True)
                return int(top), int(left), h, w
        return self._central_box(height, width)

    def _central_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The whole image, cut to the nearest ratio in the range."""
        w, h = width, height
        if width / height < self.ratio[0]:
            h = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            w = round(height * self.ratio[1])
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class Resize:
    """The shorter side to `size`: nothing to do where the data have it already."""

    size: int

    def __post_init__(self) -> None:
        """Checks the size."""
        _check_size(self.size)

    def __call__(self, image: Raw, rng: np.random.Generator) -> Pixels:
        """Not random; `rng` is not used."""
        return resize_shorter_side(decode(image), self.size)


@dataclass(frozen=True)
class RandomCrop:
    """A random square of the image, after a border of zeros is put around it."""

    size: int
    padding: int = 4

    def __post_init__(self) -> None:
        """Checks the numbers."""
        _check_size(self.size)
        if self.padding < 0:
            raise ValueError(f"got padding={self.padding}, wanted at least 0")

    def __call__(self, image: Raw, rng: np.random.Generator) -> Pixels:
        """Pads and crops."""
        pixels = decode(image)
        height, width = (side + 2 * self.padding for side in pixels.shape[:2])
        if min(height, width) < self.size:
            raise ValueError(
                f"got an image of shape {pixels.shape}, wanted sides of at least "
                f"{self.size - 2 * self.padding} for {self}"
            )
        top = rng.integers(height - self.size, endpoint=True)
        left = rng.integers(width - self.size, endpoint=True)
        # np.pad would cost as much as decoding a CIFAR image.
        padded = np.zeros((height, width, 3), np.uint8)
        inside = slice(self.padding, -self.padding or None)
        padded[inside, inside] = pixels
        return padded[top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class RandomRotation:
    """A rotation by up to `degrees` either way; nearest pixel, black corners."""

    degrees: float

    def __post_init__(self) -> None:
        """Checks the angle."""
        if not 0 <= self.degrees <= 180:
            raise ValueError(f"got degrees={self.degrees}, wanted it in [0, 180]")

    def __call__(self, image: Raw, rng: np.random.Generator) -> Pixels:
        """Rotates about the centre."""
        angle = rng.uniform(-self.degrees, self.degrees)
        rotated = Image.fromarray(decode(image)).rotate(angle, FILTERS["nearest"])
        return np.asarray(rotated)


@dataclass(frozen=True)
class HorizontalFlip:
    """The mirror image, with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        """Checks the probability."""
        if not 0 <= self.p <= 1:
            raise ValueError(f"got p={self.p}, wanted it in [0, 1]")

    def __call__(self, image: Raw, rng: np.random.Generator) -> Pixels:
        """Flips or not."""
        pixels = decode(image)
        # cv2: 30 times as fast as copying pixels[:, ::-1].
        return cv2.flip(pixels, 1) if rng.random() < self.p else pixels


CROPS = (RandomResizedCrop, RandomCrop)  # the ops that fix the size


@dataclass(frozen=True)
class TrainTransform:
    """Random ops, one after the other; one of them crops to the final size."""

    ops: tuple[RandomOp, ...]

    def __post_init__(self) -> None:
        """Checks that the result has a size."""
        if not any(isinstance(op, CROPS) for op in self.ops):
            raise ValueError(
                f"got ops={self.ops}, wanted a RandomResizedCrop or RandomCrop in them"
            )

    @property
    def size(self) -> int:
        """Side of the square images that come out."""
        return next(op.size for op in reversed(self.ops) if isinstance(op, CROPS))

    def __call__(self, image: Raw, rng: np.random.Generator) -> Pixels:
        """Uint8 pixels (size, size, 3)."""
        for op in self.ops:
            image = op(image, rng)
        return decode(image)


@dataclass(frozen=True)
class EvalTransform:
    """The shorter side to floor(size / crop_pct), then the central square of `size`.

    With Pillow's antialiased filters, as the published accuracies were measured; does
    nothing to an image that has the sizes already. Published values of `crop_pct`: 1.0
    XCiT, CaiT, CIFAR models; 0.95 ResNet-50; 0.9 DeiT; 0.875 ConvNeXt.
    """

    size: int
    crop_pct: float = 1.0
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_size(self.size)
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"got crop_pct={self.crop_pct}, wanted it in (0, 1]")
        if self.interpolation not in FILTERS:
            raise ValueError(
                f"got interpolation={self.interpolation!r}, wanted one of {[*FILTERS]}"
            )

    @property
    def shorter_side(self) -> int:
        """Of the image, before it is cropped."""
        return math.floor(self.size / self.crop_pct)

    def __str__(self) -> str:
        """In torchvision's words: "Resize(224, bicubic), CenterCrop(224)"."""
        resize = f"Resize({self.shorter_side}, {self.interpolation})"
        return f"{resize}, CenterCrop({self.size})"

    def __call__(self, image: Raw) -> Pixels:
        """Uint8 pixels (size, size, 3)."""
        pixels = decode(image)
        pixels = resize_shorter_side(pixels, self.shorter_side, self.interpolation)
        # round(), as in torchvision: half a pixel goes to the even side.
        top, left = (round((side - self.size) / 2) for side in pixels.shape[:2])
        return pixels[top : top + self.size, left : left + self.size]


def imagenet_train(
    size: int = 224,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
) -> TrainTransform:
    """Random resized crop and flip; with scale (0.8, 1.2) also CIFAR from scratch."""
    return TrainTransform((RandomResizedCrop(size, scale, ratio), HorizontalFlip(flip)))


def cifar_train(
    size: int = 32, *, padding: int = 4, flip: float = 0.5, degrees: float = 0.0
) -> TrainTransform:
    """Padded crop and flip, and the small rotation of the fine-tuning recipe."""
    ops = (Resize(size), RandomCrop(size, padding), HorizontalFlip(flip))
    return TrainTransform((*ops, RandomRotation(degrees)) if degrees else ops)


def digits_train(
    size: int = 32, *, padding: int = 2, degrees: float = 5.0
) -> TrainTransform:
    """Padded crop and a small rotation: a mirrored digit is no digit."""
    ops = (Resize(size), RandomCrop(size, padding), RandomRotation(degrees))
    return TrainTransform(ops)


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"got size={size}, wanted at least 1")


def _shrink(crop: int, size: int) -> int:
    """How far a JPEG may be decoded small and still have `size` pixels in the crop."""
    return next(k for k in (8, 4, 2, 1) if crop >= k * size or k == 1)
