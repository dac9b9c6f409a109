"""The labels of ImageNet's validation images, which lie in no class folders.

    read("ILSVRC2012_devkit_t12.tar.gz", wnids(), count=50_000)  # [65, 970, 230, ...]
    read("val.txt", wnids(), count=50_000)  # a class or label per line

In the order of the images' names. A file in another order would give a model of chance
accuracy, so the labels are compared with those of the 5,000 images that are known here,
because RobustBench lists them.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustvit.data import imagenet, robustbench

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
META = "ILSVRC2012_devkit_t12/data/meta.mat"
WANTED = (
    f"wanted --val-labels {DEVKIT}, or a text file with one class name or label per "
    "line in the order of the file names"
)


def read(file: str | Path, names: Sequence[str], *, count: int) -> list[int]:
    """The labels of `count` images: places in the sorted `names`."""
    path = Path(file).expanduser()
    if tarfile.is_tarfile(path):
        words = _in_devkit(path)
    else:
        words = path.read_text().split()
    if len(words) != count:
        raise ValueError(f"{path} has {len(words):,} labels for {count:,} images")
    if all(word.isdecimal() for word in words):
        labels = [int(word) for word in words]
        if max(labels) >= len(names):
            raise ValueError(
                f"{path} has label {max(labels)}, wanted at most {len(names) - 1}. If "
                "it is the devkit's ground truth, its numbers have an order of their "
                f"own: {WANTED}"
            )
        return labels
    label_of = {name: label for label, name in enumerate(names)}
    for line, word in enumerate(words, 1):
        if word not in label_of:
            raise ValueError(f"{path}, line {line}: {word!r} is none of the classes")
    return [label_of[word] for word in words]


def check_known(label_of: dict[str, int], class_names: Sequence[str]) -> None:
    """Raise ValueError where labels of ImageNet's images contradict RobustBench's.

    Args:
      label_of: labels by file name.
    """
    if tuple(class_names) != imagenet.wnids():
        return
    known = (id_.split("/") for id_ in robustbench.image_ids())
    found = [(file, wnid, class_names[label_of[file]])
             for wnid, file in known if file in label_of]  # fmt: skip
    if wrong := [(file, wnid, got) for file, wnid, got in found if wnid != got]:
        file, wnid, got = wrong[0]
        raise ValueError(
            f"{len(wrong):,} of {len(found):,} known validation images have a wrong "
            f"label: {file} is a {wnid}, got {got}. Are the labels in another order "
            "than the file names, or by another numbering?"
        )


def _in_devkit(path: Path) -> list[str]:
    """The WordNet ids that the devkit's own numbers mean."""
    from scipy.io import loadmat

    with tarfile.open(path) as devkit:
        try:
            truth, meta = (_member(devkit, name) for name in (TRUTH, META))
        except KeyError as error:
            raise ValueError(f"{path} is not ImageNet's devkit: {error}") from None
    numbers = [int(line) for line in truth.split()]
    synsets: Any = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    rows = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
    wnid_of = {int(number): str(wnid) for number, wnid in rows}
    return [wnid_of[number] for number in numbers]


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()
