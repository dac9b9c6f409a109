"""Small datasets on disk, drawn and written by the tests themselves."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def smooth_image(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """A photo-like picture: a few random colours, blended into each other."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def encode(
    pixels: np.ndarray, format_: str = "JPEG", *, mode: str | None = None
) -> bytes:
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    image.convert(mode or image.mode).save(file, format_)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folder of 3 classes: 8 cats, 6 dogs, 4 eels, of different sizes and formats."""
    for label, (name, count) in enumerate({"cats": 8, "dogs": 6, "eels": 4}.items()):
        (tmp_path / name).mkdir()
        for i in range(count):
            format_, suffix = (("JPEG", "jpg"), ("PNG", "png"))[i % 2]
            pixels = smooth_image(40 + i, 50 - i, seed=10 * label + i)
            file = tmp_path / name / f"{i:02}.{suffix}"
            file.write_bytes(encode(pixels, format_))
    return tmp_path
