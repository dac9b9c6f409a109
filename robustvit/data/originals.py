"""The images of ImageNet as it is distributed, and of any folder of class folders.

    list_folder("/data/imagenet", names=wnids())   # train/<wnid>/*.JPEG and val/
    list_tars("/data", labels="val.txt")       # ILSVRC2012_img_{train,val}.tar

Only listed: where an image lies, how long it is, and its label. Images inside tars are
read where they are, so nothing is unpacked.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from robustvit.data import folders, imagenet, val_labels

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
PATIENCE = 2.0  # seconds of listing before a bar appears


class Item(NamedTuple):
    """A piece of a file, and what is in it."""

    path: str
    offset: int
    size: int
    label: int  # -1: inside the piece
    name: str

    def read(self) -> bytes:
        """The bytes; ValueError if the file ends before."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) != self.size or not data:
            raise ValueError(
                f"{self.path} has {len(data):,} of the {self.size:,} bytes of "
                f"{self.name or 'a record'}"
            )
        return data


@dataclass(frozen=True)
class Originals:
    """Every image of a dataset, sorted by name within its split."""

    where: str
    class_names: tuple[str, ...] = field(repr=False)
    splits: dict[str, list[Item]] = field(repr=False)


def list_folder(
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    labels: str | Path | None = None,
) -> Originals:
    """Lists `<path>/<split>/<class>/*` or, as the split "train", `<path>/<class>/*`.

    Args:
      names: the classes that must be there, all of them and no others; by default
        those of "train".
      labels: file with the labels of a split whose images lie directly in it, as
        `val_labels.read` wants it.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"{root} is not a directory")
    train = root / "train"
    roots = {"train": root}
    if train.is_dir() and not folders.images_in(train):
        roots = {child.name: child for child in folders.directories_in(root)}
        if names is not None:  # ImageNet's test images have no labels
            roots = {
                split: roots[split] for split in ("train", "val") if split in roots
            }
    found = folders.names_of_classes(roots["train"])
    if names is not None:
        imagenet.check_classes(found, names, where=str(roots["train"]))
    splits = {
        split: (
            _flat(folder, found, labels)
            if folders.images_in(folder)
            else _by_class(folder, found, complete=names is not None or folder == train)
        )
        for split, folder in roots.items()
    }
    return _checked(Originals(str(root), found, splits))


def _by_class(folder: Path, names: Sequence[str], complete: bool) -> list[Item]:
    """Images in one directory per class; if `complete`, some of each class."""
    found = [child.name for child in folders.directories_in(folder)]
    imagenet.check_classes(found, names, where=str(folder))
    items = []
    bar = tqdm(names, desc=f"listing {folder}", unit="class", delay=PATIENCE)
    for label, name in enumerate(bar):
        images = folders.images_in(folder / name)
        if complete and not images:
            raise ValueError(f"{folder / name} has no image")
        for file in images:
            size = file.stat().st_size
            items.append(Item(str(file), 0, size, label, f"{name}/{file.name}"))
    return items


def _flat(folder: Path, names: Sequence[str], file) -> list[Item]:
    """Images directly in a directory, whose labels are in a file."""
    files = folders.images_in(folder)
    labels = _labels(file, names, [f.name for f in files], folder)
    return [
        Item(str(f), 0, f.stat().st_size, label, f.name)
        for f, label in zip(files, labels, strict=True)
    ]


def list_tars(
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    labels: str | Path | None = None,
) -> Originals:
    """Lists the tars of ILSVRC 2012 in a folder; one of the two is enough.

    Args:
      names: the classes, those of ImageNet by default.
      labels: as in `list_folder`.
    """
    root = Path(path).expanduser()
    names = imagenet.wnids() if names is None else names
    splits = {}
    if (tar := root / TRAIN_TAR).is_file():
        splits["train"] = _train_tar(tar, names)
    if (tar := root / VAL_TAR).is_file():
        members = sorted(_members(tar), key=lambda member: member[0])
        found = _labels(labels, names, [name for name, _, _ in members], tar)
        splits["val"] = [
            Item(str(tar), offset, size, label, name)
            for (name, offset, size), label in zip(members, found, strict=True)
        ]
    if not splits:
        raise ValueError(f"{root} has neither {TRAIN_TAR} nor {VAL_TAR}")
    return _checked(Originals(str(root), tuple(names), splits))


def _train_tar(tar: Path, names: Sequence[str]) -> list[Item]:
    """A tar of one tar per class."""
    classes = {Path(name).stem: offset for name, offset, _ in _members(tar)}
    imagenet.check_classes(classes, names, where=str(tar))
    items = []
    bar = tqdm(names, desc=f"listing {tar}", unit="class", delay=PATIENCE)
    for label, name in enumerate(bar):
        inside = sorted(_members(tar, classes[name]))
        if not inside:
            raise ValueError(f"{tar} has no image in {name}.tar")
        items += [Item(str(tar), offset, size, label, file)
                  for file, offset, size in inside]  # fmt: skip
    return items


def _members(tar: Path, start: int = 0) -> list[tuple[str, int, int]]:
    """(name, where its bytes begin, how many) of the files in a tar that is not packed.

    Args:
      start: where in the file the tar begins, for one that lies inside another.
    """
    length = tar.stat().st_size
    try:
        with tar.open("rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as opened:
                found = [(Path(m.name).name, m.offset_data, m.size)
                         for m in opened if m.isfile()]  # fmt: skip
    except tarfile.TarError as error:
        raise ValueError(f"{tar} is cut off or no tar: {error}") from error
    if cut := [name for name, offset, size in found if offset + size > length]:
        raise ValueError(f"{tar} is cut off: {cut[0]} ends beyond its {length:,} bytes")
    return found


def _labels(file, class_names, files: Sequence[str], where: Path) -> list[int]:
    """The labels of images without class folders, for their sorted file names."""
    if file is None:
        raise ValueError(
            f"{where} has {len(files):,} images without classes; {val_labels.WANTED}"
        )
    return val_labels.read(file, class_names, count=len(files))


def _checked(originals: Originals) -> Originals:
    """With validation images that have the right labels, as far as they are known."""
    label_of = {item.name.rpartition("/")[2]: item.label
                for item in originals.splits.get("val", ())}  # fmt: skip
    val_labels.check_known(label_of, originals.class_names)
    return originals
