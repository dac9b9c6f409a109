"""Metrics of a run: JSON lines always, TensorBoard and W&B when asked for.

    with MetricsWriter(workdir, start_step) as writer:
        writer.write(step, {"train/loss": 2.3})

Values stay on the device until `fetch`, which brings all of them over in one go.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from robustvit.types import Metrics

FILE = "metrics.jsonl"


class NotFiniteError(FloatingPointError):
    """A metric was NaN or infinite; the message names the metric and the steps."""


class CollapsedError(RuntimeError):
    """Training collapsed again after as many rollbacks as its watchdog may do."""


def fetch(pending: Sequence[tuple[int, Metrics]]) -> dict[str, float]:
    """Average metrics of several steps over the steps; one transfer.

    Args:
      pending: pairs of the step (counted from 0) and its metrics.

    Raises:
      NotFiniteError: naming the steps at which a metric was not finite.
    """
    values = jax.device_get([metrics for _, metrics in pending])
    means = {}
    for name in values[0]:
        series = np.array([metrics[name] for metrics in values], np.float64)
        bad = [pending[int(i)][0] for i in np.flatnonzero(~np.isfinite(series))]
        if bad:
            raise NotFiniteError(
                f"{name} was not finite at step{'s' * (len(bad) > 1)} "
                f"{', '.join(map(str, bad[:10]))}{' ...' * (len(bad) > 10)}"
            )
        means[name] = float(series.mean())
    return means


class MetricsWriter:
    """Appends records `{"step": ..., name: value}` to `workdir/metrics.jsonl`.

    Records after `start_step` are of a run that was cut off after its last checkpoint;
    they are dropped, so that a resumed run reads like one that was not.

    Raises:
      ModuleNotFoundError: if TensorBoard or W&B is asked for and is not installed.
    """

    def __init__(
        self,
        workdir: Path,
        start_step: int = 0,
        *,
        tensorboard: bool = False,
        wandb_project: str = "",
        config: Mapping[str, Any] | None = None,
    ):
        self._path = workdir / FILE
        self.history = read_metrics(workdir)
        self._file = self._path.open("a")
        self.rewind(start_step)
        self._tensorboard = _open_tensorboard(workdir) if tensorboard else None
        self._wandb = (
            _open_wandb(workdir, wandb_project, config) if wandb_project else None
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` as of `step` updates done."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise NotFiniteError(f"{name} was not finite at step {step}")
        self.note(step, values)
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)

    def note(self, step: int, values: Mapping[str, float | str]) -> None:
        """Record what happened, in words; to the file only."""
        record = {"step": step, **values}
        self.history.append(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def rewind(self, step: int) -> None:
        """Drop what was recorded after `step`; from there training goes on."""
        self.history = [r for r in self.history if r["step"] <= step]
        self._file.close()
        draft = self._path.with_name(self._path.name + ".tmp")
        draft.write_text("".join(json.dumps(r) + "\n" for r in self.history))
        os.replace(draft, self._path)
        self._file = self._path.open("a")

    def __enter__(self) -> MetricsWriter:
        """Nothing to open: the constructor did."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close whatever was opened."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first; a torn last line is left out."""
    path = Path(workdir) / FILE
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # killed in the middle of this write
            break
    return records


def _open_tensorboard(workdir):
    try:
        from tensorboardX import (  # pyright: ignore[reportMissingImports]
            SummaryWriter,
        )
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "log.tensorboard needs tensorboardX: pip install 'robustvit[tensorboard]'"
        ) from None
    return SummaryWriter(str(workdir / "tensorboard"))


def _open_wandb(workdir, project, config):
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "log.wandb_project needs wandb: pip install 'robustvit[wandb]'"
        ) from None
    return wandb.init(
        project=project, dir=str(workdir), config=dict(config or {}), resume="allow"
    )
