"""The bytes of one record of a prepared dataset: an encoded image and its label.

    record = pack(jpeg, label=3, file_name="n01440764_10026.JPEG")
    label_in(record)  # 3

As TFDS writes and reads them (tf.train.Example), and without TensorFlow.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from robustvit.data.images import (
    CorruptImageError,
    Pixels,
    decode,
    jpeg_shape,
    resize_shorter_side,
)

PNG = b"\x89PNG\r\n\x1a\n"
FIX_QUALITY = 100  # of what must be encoded anew, as in TFDS' ImageNet
SMALL_QUALITY = 95  # of what is made smaller, where nothing else is asked for


@dataclass(frozen=True)
class Encoding:
    """Which images are encoded anew, as RGB JPEG; the others stay as they are.

    All that are no JPEG, or one in CMYK, of which ImageNet has some two dozen.

    Args:
      max_side: larger images are made smaller, so that the longer side is this; 0: not.
      quality: from 1 to 100: all images are encoded anew with this; 0: none for that.
      keep_png: whether PNGs may stay, which lose nothing.
    """

    max_side: int = 0
    quality: int = 0
    keep_png: bool = False

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if self.max_side < 0:
            raise ValueError(f"got max_side={self.max_side}, wanted at least 0")
        if not 0 <= self.quality <= 100:
            raise ValueError(f"got quality={self.quality}, wanted it in [0, 100]")

    def __call__(self, image: bytes) -> bytes:
        """The bytes to store; CorruptImageError if the header is no image's."""
        if shape := jpeg_shape(image):
            if not self.quality and not 0 < self.max_side < max(shape):
                return image
        elif self.keep_png and image.startswith(PNG):
            pixels = decode(image)
            if not self.quality and not 0 < self.max_side < max(pixels.shape):
                return image
            return self._encode(pixels)
        return self._encode(decode(image))

    def _encode(self, pixels: Pixels) -> bytes:
        quality, long = self.quality or FIX_QUALITY, max(pixels.shape[:2])
        if 0 < self.max_side < long:
            quality, short = self.quality or SMALL_QUALITY, min(pixels.shape[:2])
            size = max(1, round(short * self.max_side / long))
            pixels = resize_shorter_side(pixels, size)
        file = io.BytesIO()
        colours = "4:4:4" if quality == FIX_QUALITY else "4:2:0"  # all, or a quarter
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=colours)
        return file.getvalue()


@dataclass(frozen=True)
class Names:
    """What the features of a record are called."""

    image: str = "image"
    label: str = "label"
    file: str = "file_name"


NAMES = Names()


def pack(image: bytes, *, label: int, file_name: str) -> bytes:
    """A record, the same bytes for the same arguments."""
    example = _example()
    feature = example.features.feature
    feature[NAMES.image].bytes_list.value.append(image)
    feature[NAMES.label].int64_list.value.append(label)
    feature[NAMES.file].bytes_list.value.append(file_name.encode())
    return example.SerializeToString(deterministic=True)


def label_in(record: bytes, names: Names = NAMES) -> int:
    """The label of a record; nothing is decoded."""
    example = _example()
    example.ParseFromString(record)
    values = example.features.feature[names.label].int64_list.value
    if len(values) != 1:
        raise ValueError(f"a record has {len(values)} labels {names.label!r}, wanted 1")
    return values[0]


def encoded_anew(record: bytes, encoding: Encoding, names: Names) -> bytes:
    """A record whose image is as `encoding` wants it, all else unchanged."""
    example = _example()
    example.ParseFromString(record)
    values = example.features.feature[names.image].bytes_list.value
    if len(values) != 1:
        raise CorruptImageError(f"{len(values)} images {names.image!r}, wanted 1")
    values[0] = encoding(values[0])
    return example.SerializeToString(deterministic=True)


def _example() -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    module: Any = tf_example_pb2  # generated: type checkers see nothing in it
    return module.Example()
