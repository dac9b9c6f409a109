"""From a config's data keys to a stream of training batches, mixed or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from robustvit.data import combined, pipeline
from robustvit.data.sources import Source, open_source


def train_batches(c: Any, source: Source) -> tuple[Callable[..., Any], int]:
    """What makes batches of a source and of `data.mix`, and the steps of an epoch.

    The former takes the arguments of `pipeline.train_batches` after the source.
    """
    batch_size, repeats, mix = c.data.batch_size, c.data.repeats, c.data.mix
    if not mix.name:
        steps = pipeline.steps_per_epoch(source, batch_size, repeats)
        return partial(pipeline.train_batches, source, repeats=repeats), steps
    if repeats != 1:
        raise ValueError(
            f"data.repeats={repeats} does not go with data.mix.name={mix.name!r}"
        )
    images = open_source(mix.name, mix.split, data_dir=c.data.dir or None)
    mixed = combined.Mix(images, float(mix.ratio))
    steps = combined.steps_per_epoch(source, mixed, batch_size)
    return partial(combined.combined_batches, source, mixed), steps
