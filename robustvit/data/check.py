"""Is a dataset whole? Its counts, its labels and its images, with the bad ones named.

found = check_split("cifar10", "test", data_dir="~/tensorflow_datasets")
found.faults  # () if nothing is wrong
print(found)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from robustvit.data import prepared
from robustvit.data.images import CorruptImageError, decode
from robustvit.data.labels import read_in_threads
from robustvit.data.sources import Source, open_source

SAMPLE = 1000  # images of a split that are decoded, unless all are
SHOWN = 10  # faults that are printed
PATIENCE = 2.0  # seconds before a bar appears


@dataclass(frozen=True)
class SplitCheck:
    """What was found in a split."""

    split: str
    examples: int
    decoded: int
    seconds: float
    per_class: Int[np.ndarray, " k"] = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    faults: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        """A few lines."""
        lines = [
            f"{self.split}: {self.examples:,} examples, {self.decoded:,} of them "
            f"decoded, {self.examples / max(self.seconds, 1e-9):,.0f} images/s"
        ]
        if self.per_class.any():
            low, high = int(self.per_class.argmin()), int(self.per_class.argmax())
            lines.append(
                f"  {len(self.class_names):,} classes of {self.per_class[low]:,} "
                f"({self.class_names[low]}) to {self.per_class[high]:,} "
                f"({self.class_names[high]}) examples"
            )
        lines += [f"  BAD: {fault}" for fault in self.faults[:SHOWN]]
        if len(self.faults) > SHOWN:
            lines.append(f"  BAD: {len(self.faults) - SHOWN:,} more")
        return "\n".join(lines)


def is_in_files(name: str) -> bool:
    """Whether a dataset's name is that of one prepared by TFDS, or by us."""
    return name != "digits" and name.partition(":")[0] not in (
        "folder", "synthetic", "imagenet100",
    )  # fmt: skip


def check_split(
    name: str, split: str, *, data_dir: str | None = None, decode_all: bool = False
) -> SplitCheck:
    """Reads every example of a split; decodes all images, or some from all over it."""
    if is_in_files(name):
        files = prepared.shard_files(name, data_dir).get(split, {})
        if faults := _faulty_files(files):
            count = sum(files.values())
            nothing = np.zeros(0, int)
            return SplitCheck(split, count, 0, 0.0, nothing, (), tuple(faults))
    source = open_source(name, split, data_dir=data_dir)
    step = 1 if decode_all else max(1, len(source) // SAMPLE)
    start = time.perf_counter()
    found = read_in_threads(lambda i: _look(source, i, i % step == 0), len(source))
    bar = tqdm(found, total=len(source), desc=split, unit="img", delay=PATIENCE,
               leave=False)  # fmt: skip
    labels, faults = [], []
    for label, fault in bar:
        labels.append(label)
        if fault:
            faults.append(fault)
    good = np.array([x for x in labels if 0 <= x < source.num_classes], int)
    return SplitCheck(
        split=split,
        examples=len(source),
        decoded=len(range(0, len(source), step)),
        seconds=time.perf_counter() - start,
        per_class=np.bincount(good, minlength=source.num_classes),
        class_names=source.class_names,
        faults=tuple(faults),
    )


def _look(source: Source, index: int, decoded: bool) -> tuple[int, str]:
    """The label of an example, and what is wrong with it."""
    try:
        raw = source[index]
        if not 0 <= raw["label"] < source.num_classes:
            return raw["label"], (
                f"{source.describe(index)} has label {raw['label']}, wanted it in "
                f"[0, {source.num_classes})"
            )
        if decoded:
            decode(raw["image"])
    except CorruptImageError as error:
        return raw["label"], f"{source.describe(index)} cannot be decoded: {error}"
    except OSError as error:  # it says which file
        return -1, str(error)
    return raw["label"], ""


def _faulty_files(files: Mapping[str, int]) -> list[str]:
    """What is wrong with the shards of a split."""
    from array_record.python.array_record_module import ArrayRecordReader
    from etils import epath

    faults = []
    for file, wanted in files.items():
        if not epath.Path(file).exists():  # may be in a bucket
            faults.append(f"{file} is missing")
            continue
        try:
            reader = ArrayRecordReader(file)
            found = reader.num_records()
            reader.close()
        # The C++ reader's errors have no type of their own.
        except Exception as error:
            faults.append(f"{file} cannot be read: {error}")
            continue
        if found != wanted:
            faults.append(
                f"{file} has {found:,} examples, and {wanted:,} by dataset_info.json"
            )
    return faults
