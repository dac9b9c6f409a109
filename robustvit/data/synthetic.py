"""Generated images in arrays on disk, as the DDPM images of CIFAR-10 are published.

    open_synthetic("~/ddpm/sorted_images.bin", "train")  # and sorted_labels.npy
    open_synthetic("~/generated/1m.npz", "train")  # arrays image and label

Fifteen million images take 47 GB, so files are mapped into memory and a page is read
when an image of it is: nothing is loaded. Images lie sorted by class in these files;
the source has them in an order that is drawn once, so that "train[:10%]" has all
classes.

Reference: Rebuffi et al. 2021, arXiv:2103.01946, who publish such images.
"""

from __future__ import annotations

import functools
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from robustvit.data import splits

RECORD = (32, 32, 3)  # of a .bin file
SUFFIXES = (".bin", ".npy", ".npz")
ZIP_HEADER = 30  # bytes before the name of a member, where two lengths end


@dataclass(frozen=True)
class Mapped:
    """An array in a file; small to pickle, unlike np.memmap."""

    path: str
    dtype: np.dtype
    offset: int  # in bytes
    shape: tuple[int, ...]

    def array(self) -> np.ndarray:
        """The array, of which nothing is read yet."""
        return _map(self)


@functools.lru_cache(maxsize=64)
def _map(m: Mapped) -> np.ndarray:
    return np.memmap(m.path, m.dtype, "r", m.offset, m.shape)


@dataclass(frozen=True, eq=False)
class SyntheticSource:
    """Pixels that are mapped into memory, in an order of their own."""

    name: str
    images: Mapped = field(repr=False)
    labels: Mapped = field(repr=False)
    places: Int[np.ndarray, " n"] = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes)."""
        return len(self.class_names)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Pixels and label of one image."""
        place = self.places[index]
        # Copied, so that the disk is read here and not while the batch is put together.
        image = np.array(self.images.array()[place])
        return {"image": image, "label": int(self.labels.array()[place])}

    def describe(self, index: int) -> str:
        """By its place in the file."""
        return f"{self.name} image {self.places[index]}"


def open_synthetic(path: str, split: str) -> SyntheticSource:
    """Opens generated images; all of them are the split "train".

    Args:
      path: a .bin of uint8 records of 32x32x3 or a .npy of uint8 (n, h, w, 3), either
        with a .npy of labels beside it; or a .npz of both.
      split: "train", or a part of it.
    """
    file = Path(path).expanduser()
    name = f"synthetic:{file}"
    if file.suffix not in SUFFIXES or not file.is_file():
        raise ValueError(f"{name} is not a file that ends in {' or '.join(SUFFIXES)}")
    if file.suffix == ".npz":
        images = _in_npz(file, ("image", "images"))
        labels = _in_npz(file, ("label", "labels"))
    else:
        images = _records(file) if file.suffix == ".bin" else _npy(file)
        labels = _npy(_labels_beside(file))
    _check(images, labels)
    count = images.shape[0]
    runs = splits.select(split, {"train": count}, dataset=name)
    order = np.random.RandomState(0).permutation(count).astype(np.int32)
    values = labels.array()
    if (low := int(values.min())) < 0:
        raise ValueError(f"{labels.path} has label {low}, wanted labels from 0")
    return SyntheticSource(
        name=name,
        images=images,
        labels=labels,
        places=np.concatenate([order[start:stop] for _, start, stop in runs]),
        class_names=tuple(str(label) for label in range(int(values.max()) + 1)),
    )


def _check(images: Mapped, labels: Mapped) -> None:
    """Raise ValueError unless there is one label for each image."""
    shape, dtype = images.shape, images.dtype
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8 or not shape[0]:
        raise ValueError(
            f"{images.path} has {dtype} of shape {shape}, wanted uint8 images "
            "(n, height, width, 3)"
        )
    if len(labels.shape) != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{labels.path} has {labels.dtype} of shape {labels.shape}, wanted one "
            "integer for each image"
        )
    if labels.shape[0] != shape[0]:
        raise ValueError(
            f"{labels.path} has {labels.shape[0]:,} labels for the {shape[0]:,} images "
            f"of {images.path}"
        )


def _records(file: Path) -> Mapped:
    """Images one after the other, without a header."""
    size, record = file.stat().st_size, math.prod(RECORD)
    if size % record or not size:
        raise ValueError(
            f"{file} has {size:,} bytes, wanted a multiple of {record:,}, the size of "
            f"an image of shape {RECORD}: is it whole?"
        )
    return Mapped(str(file), np.dtype(np.uint8), 0, (size // record, *RECORD))


def _labels_beside(file: Path) -> Path:
    """x_labels.npy or x.npy for x.bin, and x_labels.npy for x_images.bin."""
    names = [f"{file.stem}_labels.npy", f"{file.stem}.npy"]
    if "images" in file.stem:
        names.insert(0, f"{file.stem.replace('images', 'labels')}.npy")
    beside = [file.with_name(name) for name in names if name != file.name]
    for candidate in beside:
        if candidate.is_file():
            return candidate
    wanted = " or ".join(candidate.name for candidate in beside)
    raise ValueError(f"{file} has no labels beside it, wanted {wanted}")


def _npy(file: Path, start: int = 0, end: int | None = None) -> Mapped:
    """An array of a .npy file, or of one that lies inside another file."""
    with file.open("rb") as opened:
        opened.seek(start)
        try:
            version = np.lib.format.read_magic(opened)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, column_major, dtype = read(opened)
        except ValueError as error:
            raise ValueError(f"{file} is no .npy file: {error}") from None
        offset = opened.tell()
    if column_major and len(shape) > 1:
        raise ValueError(
            f"{file} is stored by columns; wanted by rows, as np.save does"
        )
    there = (file.stat().st_size if end is None else end) - offset
    if there < (wanted := math.prod(shape) * dtype.itemsize):
        raise ValueError(
            f"{file} is cut off: {there:,} of {wanted:,} bytes of an array"
        )
    return Mapped(str(file), dtype, offset, shape)


def _in_npz(file: Path, names: tuple[str, ...]) -> Mapped:
    """The array of one of these names, where it lies in the .npz."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {Path(m.filename).stem: m for m in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file} is no .npz file: {error}") from None
    found = [members[name] for name in names if name in members]
    if not found:
        raise ValueError(
            f"{file} has arrays {sorted(members)}, wanted one called "
            f"{' or '.join(names)}"
        )
    member = found[0]
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(
            f"{file} is compressed and cannot be mapped into memory; write it again "
            "once: a = np.load(old); np.savez(new, image=a[...], label=a[...])"
        )
    with file.open("rb") as opened:
        opened.seek(member.header_offset)
        header = opened.read(ZIP_HEADER)
    # The lengths of the name and of the extra field, as PKZIP's APPNOTE 4.3.7 has them.
    name, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    start = member.header_offset + ZIP_HEADER + name + extra
    return _npy(file, start, start + member.file_size)
