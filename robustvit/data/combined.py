"""Training batches out of two sources: real images, and generated ones beside them.

    mix = Mix(open_source("synthetic:~/ddpm.bin", "train"), ratio=0.5)
    batches = combined_batches(real, mix, transform, batch_size=512, seed=0)

Every global batch has int(batch_size * ratio) images of the mix, the others are real,
and which row has which is drawn anew for each batch. As in `pipeline`, what is in a
batch is a function of (seed, step) alone. An epoch ends when the first of the two
sources has been seen once: half-and-half takes the real images in twice the steps.

Reference: Debenedetti et al. 2022, arXiv:2209.07399; Gowal et al. 2021,
arXiv:2110.09468.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustvit.data import pipeline
from robustvit.data.loading import LoaderStats, OnError
from robustvit.data.sources import Source
from robustvit.data.transforms import TrainTransform
from robustvit.types import Batch

STREAM = 1  # tells the seed of the mix from that of the real images
RECENT_STEPS = 64  # whose rows are remembered: more than are read ahead


@dataclass(frozen=True, eq=False)
class Mix:
    """Images to put beside the real ones.

    Args:
      source: where they come from; of the same classes as the real ones.
      ratio: their part of every batch; 0 is none, 1 leaves no real images.
    """

    source: Source
    ratio: float

    def __post_init__(self) -> None:
        """Checks the ratio."""
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"got ratio={self.ratio} of the mix, wanted it in [0, 1]")

    def rows(self, batch_size: int) -> int:
        """How many of a batch are of the mix."""
        # 0.29 * 100 is 28.999999999999996 in floats, and means 29.
        count = int(round(batch_size * self.ratio, 6))
        if self.ratio and not count:
            raise ValueError(
                f"got ratio={self.ratio} of the mix, which is less than one image in "
                f"batch_size={batch_size}; 0 is none"
            )
        return count


def steps_per_epoch(real: Source, mix: Mix, batch_size: int) -> int:
    """Full batches until the first of the two sources has been seen once."""
    _check_classes(real, mix.source)
    mixed = mix.rows(batch_size)
    shares = ((real, batch_size - mixed), (mix.source, mixed))
    return min(pipeline.steps_per_epoch(s, rows) for s, rows in shares if rows)


def combined_batches(
    real: Source,
    mix: Mix,
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
) -> Generator[Batch, None, None]:
    """Endless shuffled batches; arguments as in `pipeline.train_batches`.

    The `index` of an image of the mix is its place in there plus len(real).
    """
    steps_per_epoch(real, mix, batch_size)  # checks sizes and classes
    reals = batch_size - (mixed := mix.rows(batch_size))
    load = {"transform": transform, "on_error": on_error, "stats": stats}
    from_real = pipeline.shuffled(real, seed=seed, **load)
    # Another seed, or image i of both would be cropped alike.
    other = np.random.SeedSequence((seed, STREAM)).generate_state(1)[0]
    from_mix = pipeline.shuffled(mix.source, seed=int(other), **load)

    def example(step: int, row: int) -> Any:
        place = int(_order(seed, step, batch_size)[row])
        if place < reals:
            return from_real[step * reals + place]
        found = from_mix[step * mixed + place - reals]
        return {**found, "index": found["index"] + np.int32(len(real))}

    return pipeline.batches_of(
        example, batch_size=batch_size, start_step=start_step,
        host=host, num_hosts=num_hosts, num_threads=num_threads,
    )  # fmt: skip


@functools.lru_cache(RECENT_STEPS)
def _order(seed: int, step: int, batch_size: int) -> np.ndarray:
    # RandomState, whose stream NumPy promises never to change.
    return np.random.RandomState([seed, step]).permutation(batch_size)


def _check_classes(real: Source, mix: Source) -> None:
    if real.num_classes != mix.num_classes:
        raise ValueError(
            f"the images of the mix have {mix.num_classes} classes, the real ones "
            f"{real.num_classes}: wanted the same classes"
        )
