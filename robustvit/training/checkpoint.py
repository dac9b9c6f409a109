"""Checkpoints: asynchronous, the last few and the best one, config beside the weights.

    with Checkpoints(workdir, keep=2, best_metric="val/robust_accuracy") as checkpoints:
        state = checkpoints.restore(abstract_state)      # None in a new folder
        checkpoints.save(state, config, {"val/robust_accuracy": 0.4})

A step is there when it is whole: orbax writes to a temporary folder and renames it, so
a run that was killed while saving goes on from the step before.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from robustvit.types import PyTree, TrainState

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints/<step>/{state,config}`.

    Args:
      workdir: folder of the run; created if missing.
      keep: how many of the latest to keep.
      best_metric: name of the metric, higher is better, whose best is kept as well.
      read_only: never create or delete anything.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        keep: int = 2,
        best_metric: str = "val/robust_accuracy",
        read_only: bool = False,
    ):
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax narrates every save
        policies = ocp.checkpoint_managers

        def score(metrics):
            return metrics[best_metric]

        best = policies.BestN(
            get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False
        )
        self._workdir, self._best_metric = str(workdir), best_metric
        folder = epath.Path(workdir)
        if "://" not in str(workdir):
            folder = folder.resolve()  # orbax wants an absolute path
        self._sound = _Named()
        self._manager = ocp.CheckpointManager(
            folder / FOLDER,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [policies.LatestN(keep), best, self._sound]
                ),
                best_fn=score,  # without it, metrics are not written to disk
                create=not read_only,
                read_only=read_only,
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "config": ocp.JsonCheckpointHandler(),
            },
        )

    def __enter__(self) -> Checkpoints:
        """Nothing to open: the constructor did."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what is being written."""
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """Updates done at the newest whole checkpoint; None without any."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Of all checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def protect(self, step: int | None) -> None:
        """From the next save on, keep this step as well, instead of one before."""
        self._sound.step = step

    def drop_after(self, step: int) -> None:
        """Delete what is newer than `step`, the best included."""
        self.wait()
        for newer in (s for s in self.steps() if s > step):
            self._manager.delete(newer)

    def find(self, step: int | str, best_metric: str | None = None) -> int:
        """The step that "best", "latest" or a number stands for.

        "best" is the newest where none was validated.

        Raises:
          ValueError: if there is no such checkpoint, naming those that are there.
        """
        steps = self.steps()
        if not steps:
            raise ValueError(f"there is no checkpoint in {self._workdir}")
        if step == "latest":
            return steps[-1]
        if step == "best":
            name = best_metric or self._best_metric
            metrics = {s: (self._manager.metrics(s) or {}).get(name) for s in steps}
            scored = {s: value for s, value in metrics.items() if value is not None}
            return max(scored, key=lambda s: (scored[s], s)) if scored else steps[-1]
        if step not in steps:
            raise ValueError(
                f"{self._workdir} has no checkpoint {step!r}: give best, latest or one "
                f"of {', '.join(map(str, steps))}"
            )
        return int(step)

    def save(
        self,
        state: TrainState,
        config: dict[str, Any],
        metrics: dict[str, float] | None,
    ) -> None:
        """Start writing; returns once the state is copied off the device.

        Does nothing if this step was saved already.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_to_saved(state)),
            config=ocp.args.JsonSave(config),
        )
        self._manager.save(step, args=args, metrics=metrics, force=True)

    def restore(
        self, abstract_state: TrainState, step: int | None = None
    ) -> TrainState | None:
        """The newest state (or that of `step`), laid out as `abstract_state` says.

        The devices need not be those that saved it.
        """
        step = self.latest_step if step is None else step
        if step is None:
            return None
        target = ocp.args.StandardRestore(_to_saved(abstract_state))
        saved = self._manager.restore(step, args=ocp.args.Composite(state=target))
        return _from_saved(saved["state"])

    def config(self, step: int) -> dict[str, Any]:
        """The config that was saved beside the weights."""
        args = ocp.args.Composite(config=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["config"]

    def variables(self, step: int, sharding: jax.sharding.Sharding) -> PyTree:
        """What evaluation needs of a step, on whatever devices there are now."""
        everything = self._manager.item_metadata(step)["state"]
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            everything,
        )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        saved = self._manager.restore(step, args=args)["state"]
        if saved.get("ema"):
            return saved["ema"]
        stats = saved.get("batch_stats") or {}
        return {"params": saved["params"], "batch_stats": stats}

    def wait(self) -> None:
        """Block until everything is on disk."""
        self._manager.wait_until_finished()


class _Named:
    """Orbax's policy that preserves one step, which may change."""

    def __init__(self):
        self.step: int | None = None

    def should_preserve(self, checkpoints, *, context):
        """One answer for each checkpoint."""
        return [checkpoint.step == self.step for checkpoint in checkpoints]


def _to_saved(state: TrainState) -> PyTree:
    """A plain dict that any orbax reader can open; keys as their numbers."""
    key = state.key
    if isinstance(key, jax.ShapeDtypeStruct):
        sharding = key.sharding
        key = jax.eval_shape(jax.random.key_data, key)
        key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=sharding)
    else:
        key = jax.random.key_data(key)
    return {**vars(state), "key": key}


def _from_saved(saved: PyTree) -> TrainState:
    return TrainState(**{**saved, "key": jax.random.wrap_key_data(saved["key"])})
