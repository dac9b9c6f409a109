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
from collections.abc import Callable, Generator
from typing import Any

import grain
import numpy as np

from robustvit.data.images import CorruptImageError
from robustvit.data.loading import (
    Example,
    LoaderStats,
    OnError,
    example_row,
    load,
    load_readable,
    skipper,
)
from robustvit.data.sources import Source
from robustvit.data.transforms import EvalTransform, TrainTransform
from robustvit.types import Batch

# Decoded ahead of the consumer: hides a slow read, and is all that a Ctrl-C waits for.
PREFETCH_BATCHES = 3


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
    examples = shuffled(
        source, transform=transform, seed=seed, on_error=on_error, stats=stats,
        repeats=repeats,
    )  # fmt: skip
    images = batch_size // repeats
    return batches_of(
        lambda step, row: examples[step * images + row],
        batch_size=batch_size, start_step=start_step,
        host=host, num_hosts=num_hosts, num_threads=num_threads, repeats=repeats,
    )  # fmt: skip


def shuffled(
    source: Source,
    *,
    transform: TrainTransform,
    seed: int,
    on_error: OnError,
    stats: LoaderStats | None,
    repeats: int = 1,
) -> Any:
    """Transformed examples for ever, each pass in another order: a grain.MapDataset."""
    load_any = functools.partial(
        load_readable, source, transform, skipper(on_error, stats), repeats
    )
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle()
    return order.repeat(None).random_map(load_any)


def batches_of(
    example: Callable[[int, int], Example],
    *,
    batch_size: int,
    start_step: int,
    host: int,
    num_hosts: int,
    num_threads: int | None,
    repeats: int = 1,
) -> Generator[Batch, None, None]:
    """Endless batches of example(step, row); this host gets a block of the rows.

    An example is one row of the batch, or `repeats` of them.
    """
    rows = _rows_per_host(batch_size, host, num_hosts, repeats)
    if start_step < 0:
        raise ValueError(f"got start_step={start_step}, wanted at least 0")

    def row(i: int) -> Any:
        """The i-th example of this host: a block of rows of every global batch."""
        step, r = divmod(i, rows)
        return example(step, host * rows + r)

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
    skip = skipper(on_error, stats)
    zeros = np.zeros((transform.size, transform.size, 3), np.uint8)

    def row(i: int) -> Example:
        step, r = divmod(i, rows)
        index = step * batch_size + host * rows + r
        if index >= len(source):
            return example_row(zeros, label=0, index=0, mask=False)
        try:
            return load(source, index, transform)
        except CorruptImageError as error:
            skip(error)
            return example_row(zeros, label=0, index=index, mask=False)

    local = grain.MapDataset.range(num_steps * rows).map(row)
    return _batches(local, rows, num_threads)


def usable_cores() -> int:
    """Cores that this process may run on: fewer than there are, in a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _batches(
    examples: grain.MapDataset,
    rows: int,
    num_threads: int | None,
    join: Callable[[list[Any]], np.ndarray] = np.stack,
) -> Generator[Batch, None, None]:
    """Reads ahead in threads, by example: one slow image does not hold up a batch."""
    threads = usable_cores() if num_threads is None else num_threads
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
