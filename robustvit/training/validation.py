"""Accuracy on the held-out split, clean and under the attack of validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
from jax.sharding import Mesh

from robustvit.parallel import put_batch
from robustvit.types import Batch, Metrics


def validate(
    sums_of: Callable[[Batch], Metrics],
    batches: Iterable[Batch],
    mesh: Mesh,
    *,
    stop: Callable[[], bool],
    wait: bool,
) -> dict[str, float] | None:
    """Means over all examples; None once `stop` says so.

    Args:
      sums_of: as `make_eval_step` gives them.
      batches: this host's rows of each.
      mesh: where the batches go.
      stop: asked after every batch.
      wait: for each batch before the next is put in line.
    """
    total = None
    for batch in batches:
        sums = sums_of(put_batch(batch, mesh))
        total = sums if total is None else jax.tree.map(jax.numpy.add, total, sums)
        if wait:
            jax.block_until_ready(total)
        if stop():
            return None
    sums = jax.device_get(total)
    count = float(sums["count"])
    return {
        "val/loss": float(sums["loss"]) / count,
        "val/clean_accuracy": float(sums["clean"]) / count,
        "val/robust_accuracy": float(sums["robust"]) / count,
    }
