"""Sources of raw examples: an index in, undecoded image bytes and a label out.

    source = open_source("cifar10", "test[:1000]", data_dir="~/tensorflow_datasets")
    source[17]  # {"image": b"\\x89PNG...", "label": 3}

Kinds of name: "digits" (inside scikit-learn, no download), "folder:<path>" (one
directory per class), "synthetic:<path>" (arrays of generated images), "imagenet100" (a
view on ImageNet), and any TFDS image dataset prepared in array_record format. All take
the split grammar of TFDS: "train", "train[:90%]", "test[1000:2000]". ImageNet and CIFAR
also have the split "robustbench", see robustbench.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from robustvit.data import (
    folders,
    prepared,
    robustbench,
    splits,
    subsets,
    synthetic,
)

NUM_DIGITS_TRAIN = 1437  # of 1,797: four fifths
DIGITS_SIZE = 32  # 8x8 scans enlarged to the size of the CIFAR models


@runtime_checkable
class Source(Protocol):
    """Random access to raw examples; safe to read from many threads, picklable."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label, in order."""
        ...

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes)."""
        ...

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """{"image": encoded bytes or uint8 (h, w, 3), "label": int}."""
        ...

    def describe(self, index: int) -> str:
        """The example's name in error messages: its file, or where it is stored."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """A dataset that is already in memory as uint8 pixels."""

    name: str
    images: UInt8[np.ndarray, "n h w 3"] = field(repr=False)
    labels: Int[np.ndarray, " n"] = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes)."""
        return len(self.class_names)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Pixels and label of one example."""
        return {"image": self.images[index], "label": int(self.labels[index])}

    def describe(self, index: int) -> str:
        """For example "digits test example 17"."""
        return f"{self.name} example {index}"


def open_source(name: str, split: str, *, data_dir: str | None = None) -> Source:
    """Opens a dataset that lies on this machine; never downloads.

    Args:
      name: "digits", "folder:<path>", "synthetic:<path>", "imagenet100", or a TFDS
        name such as "cifar10:3.0.2".
      split: in the TFDS grammar.
      data_dir: where TFDS datasets are prepared; by default where TFDS puts them.
    """
    if robustbench.is_meant(split):
        return robustbench.open_images(name, split, data_dir=data_dir)
    if name == "digits":
        return _digits(split)
    if name.startswith("folder:"):
        return folders.open_folder(name.removeprefix("folder:"), split)
    if name.startswith("synthetic:"):
        return synthetic.open_synthetic(name.removeprefix("synthetic:"), split)
    if subsets.is_meant(name):
        return subsets.open_imagenet100(name, split, data_dir=data_dir)
    return prepared.open_tfds(name, split, data_dir=data_dir)


def _digits(split: str) -> ArraySource:
    """Handwritten digits of scikit-learn, 32x32 RGB, in a fixed shuffled order."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    # RandomState, unlike Generator, promises the same stream in every NumPy version.
    order = np.random.RandomState(0).permutation(len(digits.target))
    first = {"train": 0, "test": NUM_DIGITS_TRAIN}
    sizes = {"train": NUM_DIGITS_TRAIN, "test": len(order) - NUM_DIGITS_TRAIN}
    parts = splits.select(split, sizes, dataset="digits")
    chosen = np.concatenate(
        [order[first[name] + start : first[name] + stop] for name, start, stop in parts]
    )
    return ArraySource(
        name=f"digits {split}",
        images=np.stack([_enlarge(scan) for scan in digits.images[chosen]]),
        labels=digits.target[chosen],
        class_names=tuple(str(name) for name in digits.target_names),
    )


def _enlarge(scan: np.ndarray) -> np.ndarray:
    """One 8x8 scan with values 0..16 to a uint8 RGB image."""
    from PIL import Image

    grey = Image.fromarray(np.rint(scan * (255 / 16)).astype(np.uint8))
    size = (DIGITS_SIZE, DIGITS_SIZE)
    return np.asarray(grey.resize(size, Image.Resampling.BICUBIC).convert("RGB"))
