"""Writes a dataset in the one format that is read here, array_record, as TFDS has it.

    plan = plans.of_originals(list_folder("/data/imagenet"), "imagenet2012", Encoding())
    prepare(plan, "~/tensorflow_datasets")
    open_tfds("imagenet2012", "train", data_dir="~/tensorflow_datasets")

Shard by shard: each is written beside its place, read again and compared, and then
renamed. A preparation that was stopped continues where it was; `dataset_info.json`
comes last, and without it nothing is opened. Neither TensorFlow nor Beam is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from robustvit.data import labels as label_files
from robustvit.data.examples import Names, label_in
from robustvit.data.originals import Item
from robustvit.data.plans import Plan, Shard
from robustvit.data.prepared import MARKER

WRITER_OPTIONS = "group_size:1"  # random access to every record, as TFDS writes it
MEASURED = 256  # images that an estimate is made from
PATIENCE = 2.0  # seconds before a bar appears
LOG_EVERY = 30.0  # seconds between the bar's lines in a log file
SPARE = 1.02  # room on the disk for what is not images


@dataclass(frozen=True)
class Estimate:
    """What is left to do."""

    folder: Path
    done: int  # images that lie there already
    left: int
    seconds: float
    size: int  # bytes still to be written
    free: int  # bytes on the disk


def prepare(
    plan: Plan,
    data_dir: str | Path,
    *,
    num_threads: int | None = None,
    on_start: Callable[[Estimate], None] = lambda estimate: None,
) -> Path:
    """Writes the dataset, or what is missing of it; returns its folder.

    Args:
      on_start: is told how much there is to do, before it is done.

    Raises:
      ValueError: for what is wrong with an image or a shard, or for a folder with
        something else in it.
    """
    folder = Path(data_dir).expanduser() / plan.name / plan.version
    if not _begin(plan, folder):
        return folder
    threads = num_threads or min(32, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(threads) as pool:
        found = _from_before(plan, folder)
        left = [shard for shard in plan.shards if shard.file not in found]
        estimate = _estimate(plan, left, folder, pool)
        on_start(estimate)
        if estimate.size * SPARE > estimate.free:
            raise ValueError(
                f"{estimate.size / 1e9:.1f} GB are to be written and "
                f"{estimate.free / 1e9:.1f} GB are free in {folder}"
            )
        bar = tqdm(
            total=len(plan), initial=estimate.done, desc="images", unit="img",
            mininterval=0.1 if sys.stderr.isatty() else LOG_EVERY,
        )  # fmt: skip
        with bar:
            for shard in left:
                found[shard.file] = _write_shard(plan, shard, folder, pool)
                bar.update(len(shard.items))
    _finish(plan, folder, found)
    return folder


def _begin(plan: Plan, folder: Path) -> bool:
    """Claims the folder for this plan; False if all is there."""
    marker, fingerprint = folder / MARKER, plan.fingerprint()
    if marker.exists():
        if json.loads(marker.read_text())["plan"] != fingerprint:
            raise ValueError(
                f"{folder} has a preparation of other images or with other options; "
                "remove it, or use another --data-dir"
            )
    elif any(f.suffix != ".partial" for f in folder.glob("*")):
        raise ValueError(f"{folder} is there already, and not by `robustvit data`")
    if (folder / "dataset_info.json").exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    text = {"plan": fingerprint, "shards": len(plan.shards), "from": plan.where}
    _write_whole(marker, json.dumps(text, indent=2))
    return True


def _estimate(plan: Plan, left: list[Shard], folder: Path, pool) -> Estimate:
    """Measured on images from all over what is left."""
    items = [item for shard in left for item in shard.items]
    step = max(1, len(items) // MEASURED)
    some = items[::step][:MEASURED]
    start = time.perf_counter()
    probe = folder / "estimate.partial"
    _write_records(probe, pool.map(plan.record, some))
    size = probe.stat().st_size
    probe.unlink()
    part = len(items) / max(1, len(some))
    return Estimate(
        folder=folder,
        done=len(plan) - len(items),
        left=len(items),
        seconds=(time.perf_counter() - start) * part,
        size=sum(i.size for i in items) if _keeps_bytes(plan) else int(size * part),
        free=shutil.disk_usage(folder).free,
    )


def _keeps_bytes(plan: Plan) -> bool:
    return not plan.encoding.max_side and not plan.encoding.quality


def _from_before(plan: Plan, folder: Path) -> dict[str, np.ndarray]:
    """The labels in each file that is there and as it should be."""
    there = [shard for shard in plan.shards if (folder / shard.file).exists()]
    bar = tqdm(there, desc="reading what is there", unit="shard", delay=PATIENCE)
    found = {}
    for shard in bar:
        labels = read_shard(folder / shard.file, plan.names)
        if labels is not None and _right(labels, shard.items):
            found[shard.file] = labels
    return found


def _write_shard(plan: Plan, shard: Shard, folder: Path, pool) -> np.ndarray:
    """Writes, reads again, compares, and only then gives the file its name."""
    path = folder / shard.file
    partial = path.with_name(f"{path.name}.partial")
    _write_records(partial, pool.map(plan.record, shard.items))
    labels = read_shard(partial, plan.names)
    if labels is None or not _right(labels, shard.items):
        raise ValueError(f"{partial} does not hold what was written: a broken disk?")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(plan.class_names):
        raise ValueError(
            f"{shard.items[0].path} has labels from {labels.min()} to {labels.max()}, "
            f"wanted them in [0, {len(plan.class_names)})"
        )
    partial.replace(path)
    return labels


def _write_records(path: Path, records: Iterable[bytes]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    try:
        for record in records:
            writer.write(record)
    finally:
        writer.close()


def read_shard(path: Path, names: Names) -> Int[np.ndarray, " n"] | None:
    """The labels of all records of a file; None if it is broken."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(path))
        try:
            count = reader.num_records()
            labels = [label_in(reader.read(), names) for _ in range(count)]
        finally:
            reader.close()
    # What the C++ reader raises has no type of its own: IndexError, RuntimeError, ...
    except Exception:
        return None
    return np.array(labels, np.int32)


def _right(labels: np.ndarray, items: list[Item]) -> bool:
    """Whether these are the labels of the items, as far as these know them."""
    wanted = np.array([item.label for item in items], np.int32)
    return len(labels) == len(wanted) and bool(
        np.all((labels == wanted) | (wanted == -1))
    )


def _finish(plan: Plan, folder: Path, found: dict[str, np.ndarray]) -> None:
    """Compares the counts, and writes what makes the folder a dataset."""
    info = plan.describe(folder)
    for split, shards in plan.splits.items():
        labels = np.concatenate([found[shard.file] for shard in shards])
        wanted = sum(len(shard.items) for shard in shards)
        there = sum((folder / shard.file).exists() for shard in shards)
        if (len(labels), there) != (wanted, len(shards)):
            raise ValueError(
                f"{split} in {folder} has {len(labels):,} examples in {there:,} files, "
                f"wanted {wanted:,} in {len(shards):,}: has something been removed?"
            )
        label_files.write(label_files.file_beside(str(folder), split), labels)
    if "splits" not in info:
        info["splits"] = [_split_info(plan, folder, s) for s in plan.splits]
    _write_whole(folder / "dataset_info.json", json.dumps(info, indent=2))


def _split_info(plan: Plan, folder: Path, split: str) -> dict[str, Any]:
    shards = plan.splits[split]
    return {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": split,
        "numBytes": str(sum((folder / s.file).stat().st_size for s in shards)),
        "shardLengths": [str(len(s.items)) for s in shards],
    }


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
