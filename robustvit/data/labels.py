"""All labels of a source, without decoding an image; read once, then kept.

    labels = labels_of(open_tfds("imagenet2012", "train"))  # int (1281167,)

A prepared dataset has its labels inside the records, beside the JPEGs. `robustvit data
prepare` leaves a small file with them; for other copies every record is read once, at
the speed of the disk, and the labels go to the user's cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from robustvit.data import folders, prepared

Labels = Int[np.ndarray, " n"]
PATIENCE = 2.0  # seconds of reading before a bar appears
NUM_THREADS = 16  # they wait for the disk, or for a bucket
READ_AT_ONCE = 256


def labels_of(source: prepared.TfdsSource | folders.FolderSource) -> Labels:
    """The label of every example, in order."""
    if isinstance(source, folders.FolderSource):
        return source.labels
    beside = file_beside(source.folder, source.split)
    for file in (beside, _cache_file(source)):
        if file.exists():
            with file.open("rb") as opened:
                labels = np.load(opened)
            if labels.shape == (len(source),):  # else of another copy
                return labels
    labels = _scan(source)
    cached = _cache_file(source)
    cached.parent.mkdir(parents=True, exist_ok=True)
    write(cached, labels)
    return labels


def file_beside(folder: str, split: str) -> Any:
    """The path where `robustvit data prepare` writes the labels of a whole split."""
    from etils import epath  # the folder may be in a bucket

    return epath.Path(folder) / f"labels-{split}.npy"


def write(file: Any, labels: Labels) -> None:
    """Writes a file of labels, whole or not at all."""
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    with partial.open("wb") as opened:
        np.save(opened, labels.astype(np.int32))
    partial.replace(file)


def read_in_threads(read: Callable[[int], object], count: int) -> Iterable:
    """read(0), read(1), ..., in order, with a bar if it takes long."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        # In pieces, so that the results of an ImageNet do not wait in memory.
        for start in range(0, count, READ_AT_ONCE):
            yield from pool.map(read, range(start, min(start + READ_AT_ONCE, count)))


def _scan(source: prepared.TfdsSource) -> Labels:
    found = read_in_threads(lambda i: source[i]["label"], len(source))
    bar = tqdm(
        found, total=len(source), desc=f"reading labels of {source.name}, once",
        unit="img", delay=PATIENCE, leave=False,
    )  # fmt: skip
    return np.fromiter(bar, np.int32, len(source))


def _cache_file(source: prepared.TfdsSource) -> Path:
    """In the user's cache, named after the dataset, its place and its state."""
    from etils import epath

    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    info = epath.Path(source.folder) / "dataset_info.json"
    stat = info.stat()
    state = f"{source.folder}\n{source.split}\n{stat.mtime}\n{info.read_text()}"
    key = hashlib.sha256(state.encode()).hexdigest()[:16]
    name = source.name.replace("/", "-")
    return Path(root) / "robustvit" / "labels" / f"{name}-{source.split}-{key}.npy"
