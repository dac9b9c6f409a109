"""A folder with one directory of images per class, as a source.

    open_folder("~/flowers", "train[:90%]")   # ~/flowers/<class>/*.jpg
    open_folder("~/imagenet", "val")          # ~/imagenet/val/<class>/*.JPEG

Without directories named after splits, all of the folder is one split, "train".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from robustvit.data import splits

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
)


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files and their labels; files are read when asked for."""

    name: str
    paths: tuple[str, ...] = field(repr=False)
    labels: Int[np.ndarray, " n"] = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes)."""
        return len(self.class_names)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The bytes of one file, and its label."""
        image = Path(self.paths[index]).read_bytes()
        return {"image": image, "label": int(self.labels[index])}

    def describe(self, index: int) -> str:
        """For example "folder image /data/cats/03.jpg"."""
        return f"folder image {self.paths[index]}"


def open_folder(path: str, split: str) -> FolderSource:
    """Opens `<path>/<split>/<class>/*` or, as the split "train", `<path>/<class>/*`."""
    root = Path(path).expanduser()
    roots = _split_roots(root, split)
    asked = splits.names(split) & roots.keys()
    # All are listed only to say their sizes when the split asked for is not there.
    files = {name: _shuffled_images(roots[name]) for name in asked or roots}
    sizes = {name: len(images) for name, images in files.items()}
    runs = splits.select(split, sizes, dataset=f"folder:{path}")
    chosen = [file for name, start, stop in runs for file in files[name][start:stop]]
    # The training classes define the labels: a class that is missing from a validation
    # folder must not shift the labels of those after it.
    reference = roots.get("train", roots[runs[0][0]])
    class_names = names_of_classes(reference)
    label_of = {name: label for label, name in enumerate(class_names)}
    if strangers := {file.parent.name for file in chosen} - label_of.keys():
        raise ValueError(
            f"folder:{path} split {split!r} has classes {sorted(strangers)} that "
            f"{reference} does not have"
        )
    return FolderSource(
        name=f"folder:{path} {split}",
        paths=tuple(str(file) for file in chosen),
        labels=np.array([label_of[file.parent.name] for file in chosen]),
        class_names=class_names,
    )


def _split_roots(root: Path, split: str) -> dict[str, Path]:
    """The directory that holds the class directories, for each split there is."""
    if not root.is_dir():
        raise ValueError(f"folder:{root} is not a directory")
    children = directories_in(root)
    if not children:
        found = "images directly in it" if images_in(root) else "an empty folder"
        raise ValueError(f"folder:{root}: got {found}, wanted one directory per class")
    named_after_split = splits.names(split) & {child.name for child in children}
    if not named_after_split and any(images_in(child) for child in children):
        return {"train": root}
    return {child.name: child for child in children}


def names_of_classes(root: Path) -> tuple[str, ...]:
    """Sorted class names; one class alone cannot be learned and is a wrong path."""
    names = tuple(child.name for child in directories_in(root))
    if len(names) < 2:
        raise ValueError(
            f"folder:{root} has {len(names)} class directories {list(names)}, "
            "wanted at least 2"
        )
    return names


def _shuffled_images(root: Path) -> list[Path]:
    """All images below a split's directory, in an order that is always the same.

    Shuffled, because sorted by class the first 90 % would lack the last classes. With
    RandomState, whose stream NumPy promises never to change.
    """
    if images_in(root):
        raise ValueError(
            f"folder:{root}: got images directly in it, wanted one directory per class"
        )
    files = [file for child in directories_in(root) for file in images_in(child)]
    if not files:
        raise ValueError(
            f"folder:{root} has no image in its class directories "
            f"{[child.name for child in directories_in(root)]}; wanted files that end "
            f"in {' '.join(sorted(EXTENSIONS))}"
        )
    return [files[i] for i in np.random.RandomState(0).permutation(len(files))]


def directories_in(root: Path) -> list[Path]:
    """Sorted; hidden ones, such as .ipynb_checkpoints, are nobody's class."""
    return sorted(c for c in root.iterdir() if c.is_dir() and c.name[0] != ".")


def images_in(root: Path) -> list[Path]:
    """Sorted; files that start with a dot are what macOS leaves in archives."""
    return sorted(
        file
        for file in root.iterdir()
        if file.suffix.lower() in EXTENSIONS and file.name[0] != "."
    )
