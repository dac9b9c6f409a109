"""RobustBench's test images, in its order: the split "robustbench".

    open_images("imagenet2012", "robustbench", data_dir="/data/tfds")
    open_images("folder:/data/imagenet", "robustbench[:100]")   # val/<wnid>/*.JPEG
    open_images("cifar10", "robustbench[:1000]")

ImageNet: 5,000 images of the validation set, whose names come with this file; labels
are the classes in the order of their WordNet ids. CIFAR: the whole test set in the
order of its publication, which TFDS stores shuffled and remembers in its ids.

Reference: Croce et al. 2021, arXiv:2010.09670.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from robustvit.data import folders, prepared, splits

SPLIT = "robustbench"
NUM_CLASSES = 1000  # of ImageNet; one too few, and all labels after it would shift
# What RobustBench calls a dataset, by what its name here begins with.
DATASETS = {
    "imagenet2012": "imagenet",
    "folder": "imagenet",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
}
NUM_IMAGES = {"imagenet": 5_000, "cifar10": 10_000, "cifar100": 10_000}
SHOWN = 3  # missing images that an error names
PATIENCE = 2.0  # seconds of searching before a bar appears


@dataclass(frozen=True, eq=False)
class ChosenSource:
    """Some examples of a prepared dataset, in an order of their own."""

    source: prepared.TfdsSource
    indices: tuple[int, ...] = field(repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label, in order."""
        return self.source.class_names

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes)."""
        return self.source.num_classes

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Encoded bytes and label of one example."""
        return self.source[self.indices[index]]

    def describe(self, index: int) -> str:
        """By its place in the dataset, and its file."""
        return self.source.describe(self.indices[index])


def is_meant(split: str) -> bool:
    """Whether a split is "robustbench" or a part of it."""
    return re.match(rf"{SPLIT}\b", split) is not None


def dataset_of(name: str) -> str:
    """What RobustBench calls "imagenet2012:5.1.0"; ValueError if it has no such data.

    A folder is taken for ImageNet, the only dataset that RobustBench reads from one.
    """
    start = re.split("[:/]", name)[0]
    if start not in DATASETS:
        raise ValueError(
            f"RobustBench has no test images of {name!r}, wanted imagenet2012, "
            "folder:<path> of ImageNet, cifar10 or cifar100"
        )
    return DATASETS[start]


@functools.cache
def image_ids() -> tuple[str, ...]:
    """The images of ImageNet, like "n09468604/ILSVRC2012_val_00015253.JPEG"."""
    path = Path(__file__).parent / "robustbench_imagenet_ids.txt"
    return tuple(path.read_text().split())


def open_images(
    name: str, split: str, *, data_dir: str | None = None
) -> folders.FolderSource | ChosenSource:
    """Opens RobustBench's images, or a part of them such as "robustbench[:100]".

    Args:
      name: a TFDS name, or "folder:<path>" with images in <path>/val/<wnid>/.
      split: "robustbench" and, in brackets, a part.
      data_dir: where TFDS datasets are prepared.

    Raises:
      ValueError: for another dataset, or if images are missing.
    """
    dataset = dataset_of(name)
    if dataset == "imagenet":
        ids = _part(image_ids(), split, name)
        if name.startswith("folder:"):
            return _in_folder(Path(name.removeprefix("folder:")).expanduser(), ids)
        return _in_validation(name, ids, data_dir)
    return _in_test(name, split, data_dir)


def _part(items: Sequence[Any], split: str, name: str) -> list[Any]:
    runs = splits.select(split, {SPLIT: len(items)}, dataset=name)
    return [item for _, start, stop in runs for item in items[start:stop]]


def _in_folder(root: Path, ids: Sequence[str]) -> folders.FolderSource:
    """Images of ImageNet in a directory per class."""
    val = root / "val"
    if not val.is_dir():
        raise ValueError(f"{val} is not a directory, wanted val/<wnid>/*.JPEG in it")
    class_names = folders.names_of_classes(val)
    _check_classes(class_names, str(val))
    missing = [id_ for id_ in ids if not (val / id_).is_file()]
    _check_complete(missing, ids, str(val))
    return folders.FolderSource(
        name=f"folder:{root} {SPLIT}",
        paths=tuple(str(val / id_) for id_ in ids),
        labels=np.array([class_names.index(id_.split("/")[0]) for id_ in ids]),
        class_names=class_names,
    )


def _in_validation(name: str, ids: Sequence[str], data_dir: str | None) -> ChosenSource:
    """Images of ImageNet in the validation split of TFDS."""
    source = prepared.open_tfds(name, "validation", data_dir=data_dir)
    _check_classes(source.class_names, source.name)
    files = [id_.split("/")[1] for id_ in ids]
    places = _places(source, files)
    _check_complete([f for f in files if f not in places], files, source.name)
    return ChosenSource(source, tuple(places[file] for file in files))


def _in_test(name: str, split: str, data_dir: str | None) -> ChosenSource:
    """A part of CIFAR's test set, in the order of its publication."""
    source = prepared.open_tfds(name, "test", data_dir=data_dir)
    files = [f"test_{i:05}" for i in range(len(source))]
    places = _places(source, files)
    order = [places[file] for file in files if file in places]
    if len(order) < len(files):  # a copy that was not made by TFDS
        order = list(range(len(files)))
        if split != SPLIT:
            warnings.warn(
                f"{source.name} does not say in which order its images were published "
                "(no ids like test_00000), so its first ones are not RobustBench's",
                stacklevel=2,
            )
    return ChosenSource(source, tuple(_part(order, split, name)))


def _places(source: prepared.TfdsSource, files: Sequence[str]) -> dict[str, int]:
    """Where the examples made from `files` are; reads the split until it has all."""
    wanted, places = set(files), {}
    bar = tqdm(
        range(len(source)), desc=f"finding {len(files):,} images in {source.name}",
        unit="img", delay=PATIENCE, leave=False,
    )  # fmt: skip
    for i in bar:
        file = source.file_name(i).rpartition("/")[2]
        if file in wanted:
            places[file] = i
            if len(places) == len(wanted):
                break
    bar.close()
    return places


def _check_classes(class_names: tuple[str, ...], where: str) -> None:
    if len(class_names) != NUM_CLASSES or list(class_names) != sorted(class_names):
        raise ValueError(
            f"{where} has {len(class_names):,} classes, wanted the {NUM_CLASSES:,} "
            "WordNet ids of ImageNet in their order: labels would be wrong"
        )


def _check_complete(missing: Sequence[str], wanted: Sequence[str], where: str) -> None:
    if missing:
        more = ", ..." if len(missing) > SHOWN else ""
        raise ValueError(
            f"{where} lacks {len(missing):,} of the {len(wanted):,} images that "
            f"RobustBench uses: {', '.join(missing[:SHOWN])}{more}"
        )
