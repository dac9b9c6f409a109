"""Some classes of a dataset as a dataset of its own, such as ImageNet-100.

    open_imagenet100("imagenet100", "train[:98%]", data_dir="~/tensorflow_datasets")
    open_imagenet100("imagenet100:folder:/data/imagenet", "val")

A view: nothing is copied. A part of a split is a part of the subset's examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from robustvit.data import folders, imagenet, prepared, splits
from robustvit.data.labels import labels_of

NAME = "imagenet100"
# Opens one whole split by its name.
Opener = Callable[[str], prepared.TfdsSource | folders.FolderSource]


@dataclass(frozen=True, eq=False)
class SubsetSource:
    """The examples of some classes, labelled by their place among these."""

    name: str
    whole: tuple[prepared.TfdsSource | folders.FolderSource, ...] = field(repr=False)
    of: Int[np.ndarray, " n"] = field(repr=False)  # which of `whole`
    places: Int[np.ndarray, " n"] = field(repr=False)  # where in it
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
        """Encoded bytes and the new label of one example."""
        raw = self.whole[self.of[index]][int(self.places[index])]
        return {"image": raw["image"], "label": int(self.labels[index])}

    def describe(self, index: int) -> str:
        """By its place in the whole dataset, and its file."""
        whole = self.whole[self.of[index]]
        return f"{self.name}: {whole.describe(int(self.places[index]))}"


def is_meant(name: str) -> bool:
    """Whether a dataset's name is "imagenet100", alone or with where it is taken from.

    A prepared dataset of that name, with its version, would be "imagenet100/1.0.0".
    """
    return name.partition(":")[0] == NAME


def open_imagenet100(
    name: str, split: str, *, data_dir: str | None = None
) -> SubsetSource:
    """Opens a split of the 100 classes.

    Args:
      name: "imagenet100" out of imagenet2012, "imagenet100:5.1.0" out of that version,
        or "imagenet100:folder:<path>" out of a folder with one directory per class.
      split: in the TFDS grammar; with the split names of what it is taken from.
      data_dir: where TFDS datasets are prepared.
    """
    rest = name.partition(":")[2]

    def open_whole(part: str) -> prepared.TfdsSource | folders.FolderSource:
        if rest.startswith("folder:"):
            return folders.open_folder(rest.removeprefix("folder:"), part)
        base = f"imagenet2012:{rest}" if rest else "imagenet2012"
        return prepared.open_tfds(base, part, data_dir=data_dir)

    return open_subset(name, split, open_whole, imagenet.wnids_of_100())


def open_subset(
    name: str, split: str, open_whole: Opener, class_names: Sequence[str]
) -> SubsetSource:
    """Opens the examples of `class_names`; labels are places in this sequence.

    Args:
      open_whole: opens one whole split of the dataset that has them.
    """
    whole = {part: open_whole(part) for part in sorted(splits.names(split))}
    chosen = {part: _chosen(source, class_names) for part, source in whole.items()}
    sizes = {part: len(places) for part, (places, _) in chosen.items()}
    runs = splits.select(split, sizes, dataset=name)
    order = list(whole)
    return SubsetSource(
        name=name,
        whole=tuple(whole.values()),
        of=np.concatenate([np.full(b - a, order.index(part)) for part, a, b in runs]),
        places=np.concatenate([chosen[part][0][a:b] for part, a, b in runs]),
        labels=np.concatenate([chosen[part][1][a:b] for part, a, b in runs]),
        class_names=tuple(class_names),
    )


def _chosen(source, class_names):
    """Places in the source, in its order, and new labels."""
    imagenet.check_classes(
        source.class_names, class_names, where=source.name, exact=False
    )
    new_label = np.full(source.num_classes, -1)
    for label, name in enumerate(class_names):
        new_label[source.class_names.index(name)] = label
    labels = new_label[labels_of(source)]
    places = np.flatnonzero(labels >= 0)
    return places, labels[places]
