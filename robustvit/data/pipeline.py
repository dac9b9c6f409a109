"""Batches: shuffled for ever for training, in order and once for evaluation.

    batches = train_batches(source, transform, batch_size=512, seed=0, start_step=1000)
    for batch in eval_batches(source, EvalTransform(224), batch_size=100): ...

A batch is {"image": uint8 (b, size, size, 3), "label": int32 (b,), "index": int32 (b,),
"mask": bool (b,)}; `index` is the example's place in the source. Where images have
several views, "view" is there as well. What is in a batch, augmentations included, is a
function of (seed, step) alone: a run continues from its step, on any number of hosts,
with nothing else to restore. `batches.close()` drops what was read ahead and stops the
threads; so does letting go of the iterator.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any, Literal

import grain
import numpy as np

from robustvit.data.images import CorruptImageError, Raw
from robustvit.data.sources import Source
from robustvit.data.transforms import EvalTransform, TrainTransform
from robustvit.data.views import views
from robustvit.types import Batch

OnError = Literal["raise", "skip"]
Example = dict[str, Any]  # one row of a batch

# Decoded ahead of the consumer: hides a slow read, and is all that a Ctrl-C waits for.
PREFETCH_BATCHES = 3
# More unreadable examples in a row than this are a broken dataset, not bad luck.
MAX_SKIPS_IN_A_ROW = 100


class LoaderStats:
    """Counts that the loader's threads keep for whoever passed this in.

    They run ahead of the batches taken, by what is prefetched.
    """

    def __init__(self) -> None:
        """Nothing is skipped yet."""
        self._lock = threading.Lock()
        self._skipped: list[str] = []

    @property
    def skipped(self) -> int:
        """Times that an unreadable example was met and skipped."""
        return len(self._skipped)

    @property
    def skipped_names(self) -> tuple[str, ...]:
        """The examples skipped, once each, with the reason."""
        with self._lock:
            return tuple(dict.fromkeys(self._skipped))

    def skip(self, name: str) -> None:
        """Counts one more."""
        with self._lock:
            self._skipped.append(name)


def steps_per_epoch(source: Source, batch_size: int, repeats: int = 1) -> int:
    """Full batches in one pass; what remains begins the next pass.

    A batch counts views, a pass images: with `repeats` views of each image there are
    that many times the steps.
    """
    if repeats < 1 or batch_size % repeats:
        raise ValueError(
            f"got batch_size={batch_size}, wanted a multiple of repeats={repeats}, the "
            "views of each image (at least 1)"
        )
    if not 0 < batch_size <= len(source) * repeats:
        raise ValueError(
            f"got batch_size={batch_size}, wanted it in [1, {len(source) * repeats}], "
            "the number of examples" + (" times the views" if repeats > 1 else "")
        )
    return len(source) * repeats // batch_size


def train_batches(
    source: Source,
    transform: TrainTransform,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    host: int = 0,
    num_hosts: int = 1,
    num_threads: int | None = None,
    on_error: OnError = "raise",
    stats: LoaderStats | None = None,
    repeats: int = 1,
) -> Generator[Batch, None, None]:
    """Endless shuffled batches, each pass over the data in another order.

    Args:
      batch_size: of all hosts together; this host gets its rows in `num_hosts` blocks.
      start_step: number of batches to leave out, at no cost.
      num_threads: that read and decode; by default one per core.
      on_error: what to do with an unreadable image: raise CorruptImageError, or take
        the next example of the source in its place and count it in `stats`.
      repeats: views of each image, in rows that follow each other. Where there are
        several, the first is only cropped and flipped, and "view" (b,) counts them.
    """
    steps_per_epoch(source, batch_size, repeats)
    # From here on, a row is an image, of which `repeats` rows of the batch are made.
    rows = _rows_per_host(batch_size, host, num_hosts, repeats)
    batch_size //= repeats
    if start_step < 0:
        raise ValueError(f"got start_step={start_step}, wanted at least 0")
    load = functools.partial(
        _load_readable, source, transform, _skipper(on_error, stats), repeats
    )
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle()
    examples = order.repeat(None).random_map(load)

    def row(i: int) -> Any:
        """The i-th example of this host: a block of rows of every global batch."""
        step, r = divmod(i, rows)
        return examples[step * batch_size + host * rows + r]

    local = grain.MapDataset.range(start_step * rows, sys.maxsize).map(row)
    join = np.stack if repeats == 1 else np.concatenate
    return _batches(local, rows, num_threads, join)


def eval_batches(
    source: Source,
    transform: EvalTransform,
    *,
    batch_size: int,
    host: int = 0,
    num_hosts: int = 1,
    num_threads: int | None = None,
    on_error: OnError = "raise",
    stats: LoaderStats | None = None,
) -> Generator[Batch, None, None]:
    """Every example once and in order; the last batch is filled with masked zeros.

    All hosts get the same number of batches. Arguments as in `train_batches`, except
    that an unreadable image is masked out instead of replaced.
    """
    if batch_size < 1:
        raise ValueError(f"got batch_size={batch_size}, wanted at least 1")
    rows = _rows_per_host(batch_size, host, num_hosts)
    num_steps = -(-len(source) // batch_size)
    skip = _skipper(on_error, stats)
    zeros = np.zeros((transform.size, transform.size, 3), np.uint8)

    def row(i: int) -> Example:
        step, r = divmod(i, rows)
        index = step * batch_size + host * rows + r
        if index >= len(source):
            return _example(zeros, label=0, index=0, mask=False)
        try:
            return _load(source, index, transform)
        except CorruptImageError as error:
            skip(error)
            return _example(zeros, label=0, index=index, mask=False)

    local = grain.MapDataset.range(num_steps * rows).map(row)
    return _batches(local, rows, num_threads)


def _batches(
    examples: grain.MapDataset,
    rows: int,
    num_threads: int | None,
    join: Callable[[list[Any]], np.ndarray] = np.stack,
) -> Generator[Batch, None, None]:
    """Reads ahead in threads, by example: one slow image does not hold up a batch."""
    threads = (os.cpu_count() or 1) if num_threads is None else num_threads
    options = grain.ReadOptions(
        num_threads=threads,
        prefetch_buffer_size=max(PREFETCH_BATCHES * rows, threads),
    )

    def iterate() -> Generator[Batch, None, None]:
        reader = iter(examples.to_iter_dataset(options))
        try:
            while batch := list(itertools.islice(reader, rows)):
                yield {name: join([e[name] for e in batch]) for name in batch[0]}
        finally:
            reader.close()  # drops what is queued, so that the threads can end

    return iterate()


def _load_readable(
    source: Source,
    transform: TrainTransform,
    skip: Callable[[CorruptImageError], None],
    repeats: int,
    index: int,
    rng: np.random.Generator,
) -> Example:
    """An example, or the next readable one: the same in every run."""

    def apply(image: Raw) -> np.ndarray:
        if repeats == 1:
            return transform(image, rng)
        return views(transform, image, rng, repeats)

    tries = min(MAX_SKIPS_IN_A_ROW, len(source))
    for i in range(index, index + tries):
        try:
            example = _load(source, i % len(source), apply)
            return example if repeats == 1 else _rows(example, repeats)
        except CorruptImageError as error:
            skip(error)
    raise CorruptImageError(
        f"got {tries} unreadable images in a row, the first: {source.describe(index)}"
    )


def _rows(example: Example, repeats: int) -> Example:
    """An example whose image is several views, as that many rows of a batch."""
    rows = {name: np.repeat(value, repeats) for name, value in example.items()
            if name != "image"}  # fmt: skip
    number = np.arange(repeats, dtype=np.int32)
    return {"image": example["image"], **rows, "view": number}


def _load(source: Source, index: int, apply: Callable[[Raw], np.ndarray]) -> Example:
    """One transformed example; what is wrong with it is said with its name."""
    raw = source[index]
    if not 0 <= raw["label"] < source.num_classes:
        raise ValueError(
            f"{source.describe(index)} has label {raw['label']}, wanted it in "
            f"[0, {source.num_classes})"
        )
    try:
        image = apply(raw["image"])
    except CorruptImageError as error:
        message = f"{source.describe(index)} cannot be decoded: {error}"
        raise CorruptImageError(message) from error
    return _example(image, label=raw["label"], index=index, mask=True)


def _example(image: np.ndarray, *, label: int, index: int, mask: bool) -> Example:
    return {
        "image": image,
        "label": np.int32(label),
        "index": np.int32(index),
        "mask": np.bool_(mask),
    }


def _skipper(
    on_error: OnError, stats: LoaderStats | None
) -> Callable[[CorruptImageError], None]:
    """What happens to an unreadable image: called with its error, may raise it."""
    if on_error not in ("raise", "skip"):
        raise ValueError(f"got on_error={on_error!r}, wanted 'raise' or 'skip'")

    def skip(error: CorruptImageError) -> None:
        if on_error == "raise":
            raise error
        if stats is not None:
            stats.skip(str(error))

    return skip


def _rows_per_host(batch_size: int, host: int, num_hosts: int, repeats: int = 1) -> int:
    if batch_size % (num_hosts * repeats):
        each = f" times repeats={repeats}" if repeats > 1 else ""
        raise ValueError(
            f"got batch_size={batch_size}, wanted a multiple of num_hosts={num_hosts}"
            + each
        )
    if not 0 <= host < num_hosts:
        raise ValueError(f"got host={host}, wanted it in [0, {num_hosts})")
    return batch_size // (num_hosts * repeats)
