"""Encoded images to uint8 RGB pixels, and pixels to another size.

    pixels = decode(jpeg_bytes)  # uint8 (h, w, 3)
    pixels = decode(jpeg_bytes, shrink=2)  # half the size, for half the work

A JPEG takes simplejpeg (libjpeg-turbo without Pillow's copies; bit for bit the same
pixels); all else, and every JPEG that libjpeg-turbo complains about, takes Pillow.
"""

from __future__ import annotations

import io
import math

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

Pixels = UInt8[np.ndarray, "_h _w 3"]  # sizes that differ from argument to result
Raw = bytes | Pixels  # what a source gives

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class CorruptImageError(ValueError):
    """Bytes that no decoder can read; the data pipeline adds which example it was."""


def jpeg_shape(image: Raw) -> tuple[int, int] | None:
    """(height, width) from the header, or None unless the bytes begin a good JPEG."""
    if isinstance(image, np.ndarray) or not image.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(image)
    except ValueError:
        return None  # Pillow reads more kinds, and has the last word on what is corrupt
    # CMYK to RGB differs between the two; Pillow's is what published models saw.
    return None if colorspace in ("CMYK", "YCCK") else (int(height), int(width))


def decode(image: Raw, *, shrink: int = 1) -> Pixels:
    """RGB pixels; already decoded ones pass through.

    Args:
      shrink: 1, 2, 4 or 8: may decode a JPEG to 1/shrink of its size, rounded up. The
        caller reads from the result's shape whether that happened.

    Raises:
      CorruptImageError: the bytes are no image, or only a part of one.
    """
    if isinstance(image, np.ndarray):
        return image
    if shape := jpeg_shape(image):
        height, width = (math.ceil(side / shrink) for side in shape)
        try:
            return simplejpeg.decode_jpeg(
                image, "RGB", min_height=height, min_width=width, min_factor=shrink
            )
        except ValueError:
            pass  # libjpeg warnings raise too; Pillow, as in timm, accepts those files
    return _decode_with_pillow(image)


def _decode_with_pillow(image: bytes) -> Pixels:
    try:
        with Image.open(io.BytesIO(image)) as opened:
            if opened.mode.startswith("I;16"):  # convert() would clip it to white
                opened = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
            return np.asarray(opened.convert("RGB"))
    except UnidentifiedImageError as error:
        raise CorruptImageError(f"{len(image)} bytes of no known format") from error
    # Whatever its parsers trip over: OSError, SyntaxError, struct.error, EOFError, ...
    except Exception as error:
        raise CorruptImageError(f"{len(image)} bytes, {error}") from error


def resize_shorter_side(
    image: Pixels, size: int, interpolation: str = "bicubic"
) -> Pixels:
    """Pillow's antialiased resize, so that the shorter side is `size`; else a no-op."""
    height, width = image.shape[:2]
    short = min(height, width)
    if short == size:
        return image
    # The longer side is rounded down, as torchvision does.
    new_size = (int(size * width / short), int(size * height / short))
    return np.asarray(Image.fromarray(image).resize(new_size, FILTERS[interpolation]))
