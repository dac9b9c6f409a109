"""The training loop: objects in, a trained and checkpointed state out.

    fit(model, objective, tx, data=data, validate_with=attack, threat_at=threat_at,
        settings=Settings(epochs=10), workdir=workdir, key=jax.random.key(0))

Called again on the same folder it goes on from the last checkpoint, and ends with the
same parameters to the bit: batches and random keys are functions of the step.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from robustvit.attacks import PGD
from robustvit.parallel import check_divisible, data_mesh, put_batch, replicated
from robustvit.threat import ThreatModel
from robustvit.training.checkpoint import Checkpoints
from robustvit.training.display import Display
from robustvit.training.guard import Guard
from robustvit.training.interrupts import Interrupted, StopRequest, stop_on_signals
from robustvit.training.metrics import MetricsWriter, fetch
from robustvit.training.patience import out_of_patience
from robustvit.training.schedules import EpochSchedule
from robustvit.training.settings import Settings, TrainData
from robustvit.training.step import (
    evaluation_variables,
    init_state,
    make_eval_step,
    make_train_step,
    with_variables,
)
from robustvit.training.throughput import Throughput, is_idle
from robustvit.training.validation import validate
from robustvit.training.watchdog import Watchdog
from robustvit.types import Objective, PyTree, TrainState


@dataclass(frozen=True)
class Fitted:
    """How training ended."""

    state: TrainState
    history: list[dict[str, Any]] = field(repr=False)
    best_step: int


def fit(
    model: Any,
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    data: TrainData,
    validate_with: PGD,
    threat: ThreatModel,
    threat_at: Callable[[int], ThreatModel],
    lr_at: EpochSchedule,
    settings: Settings,
    workdir: Path,
    key: jax.Array,
    config: Mapping[str, Any] | None = None,
    variables: PyTree | None = None,
    watchdog: Watchdog | None = None,
) -> Fitted:
    """Train `settings.epochs` epochs, or what is left of them.

    Args:
      model: validated once per epoch, clean and under `validate_with`.
      objective: built on the same model.
      tx: the optimizer, its schedule inside.
      data: batches, see `TrainData`.
      validate_with: the attack of the validation, on `threat`.
      threat: what to be robust against in the end.
      threat_at: epoch -> the threat model to train against.
      lr_at: epoch, or a fraction of it -> learning rate, to be logged.
      settings: see `Settings`.
      workdir: folder for checkpoints and metrics.
      key: everything random follows from it and the step.
      config: stored beside the weights.
      variables: weights to start from, instead of fresh ones.
      watchdog: looks out for gradient masking; may send training back.

    Raises:
      ValueError: if the batch does not divide over the devices.
      NotFiniteError: if a metric is NaN; the last good checkpoint stays.
      CollapsedError: if the watchdog has rolled back often enough.
      Interrupted: after Ctrl-C or SIGTERM, once a checkpoint is written.
    """
    mesh = data_mesh()
    check_divisible(data.batch_size, mesh)
    ema = settings.ema_decay > 0
    init = partial(init_state, model, tx, image_size=data.image_size, ema=ema)
    init = jax.jit(init, out_shardings=replicated(mesh))
    checkpoints = Checkpoints(
        workdir, keep=settings.keep, best_metric=settings.best_metric
    )
    guard = None if watchdog is None else Guard(watchdog, model, workdir)
    with checkpoints, stop_on_signals() as stop:
        if guard is not None:
            guard.finish(checkpoints)
        writer = MetricsWriter(
            workdir,
            checkpoints.latest_step or 0,
            tensorboard=settings.tensorboard,
            wandb_project=settings.wandb_project,
            config=config,
        )
        with writer:

            def newest():
                state = checkpoints.restore(_abstract(init, key, mesh))
                if state is not None:
                    return state
                state = init(key)
                return state if variables is None else with_variables(state, variables)

            run = _Run(model, objective, tx, data, validate_with, threat, threat_at,
                       lr_at, settings, mesh, key, dict(config or {}), checkpoints,
                       writer, stop, guard, newest)  # fmt: skip
            state = run.train()
            checkpoints.wait()
            return Fitted(state, writer.history, checkpoints.find("best"))


def _abstract(init, key, mesh):
    """Shapes and shardings of a fresh state, for restoring onto these devices."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)),
        jax.eval_shape(init, key),
    )


@dataclass
class _Run:
    """The arguments of `fit`, so that its parts need not pass them around."""

    model: Any
    objective: Objective
    tx: optax.GradientTransformation
    data: TrainData
    validate_with: PGD
    threat: ThreatModel
    threat_at: Callable[[int], ThreatModel]
    lr_at: EpochSchedule
    settings: Settings
    mesh: Mesh
    key: jax.Array
    config: dict[str, Any]
    checkpoints: Checkpoints
    writer: MetricsWriter
    stop: StopRequest
    guard: Guard | None
    newest: Callable[[], TrainState]

    def train(self) -> TrainState:
        """Every step from the newest checkpoint on."""
        state, data = self.newest(), self.data
        per_epoch = data.steps_per_epoch
        start, self._total = int(state.step), self.settings.epochs * per_epoch
        self._eval_step = jax.jit(make_eval_step(self.model, self.validate_with))
        self._throughput = Throughput.of(
            self.model, state, data.image_size, self.objective.forwards, self.mesh.size
        )
        self._pending = []
        # Virtual CPU devices deadlock when dozens of collectives queue up (jax 0.10).
        self._must_wait = self.mesh.size > 1 and jax.default_backend() == "cpu"
        if start >= self._total:
            return state
        with Display(start, self._total, per_epoch, data.batch_size) as self._display:
            if start and start % per_epoch == 0 and not self._validated(start):
                self._validate(state, start)
            while (state := self._to_the_end(state)) is None:
                self._throughput.restart()
                state = self.newest()
                if self.stop:
                    raise Interrupted(int(state.step), self.stop.signal or 0)
        return state

    def _to_the_end(self, state):
        """The state after the last step; None once the watchdog went back."""
        train_step, self._went_back = self._compiled_step(), False
        with contextlib.closing(self.data.train(int(state.step))) as batches:
            for step in range(int(state.step), self._total):
                if step % self.data.steps_per_epoch == 0 and self._stopped_early():
                    break
                state = self._step(state, step, batches, train_step)
                if self._went_back:
                    return None
        return state

    def _compiled_step(self):
        train_step = make_train_step(
            self.objective if self.guard is None else self.guard.objective(),
            self.tx,
            augment=self.data.augment,
            mixing=self.data.mixing,
            ema_decay=self.settings.ema_decay,
            accumulate=self.settings.accumulate,
        )
        # Donating lets the new state take the old one's memory.
        return jax.jit(
            train_step, donate_argnames="state", out_shardings=replicated(self.mesh)
        )

    def _stopped_early(self):
        s = self.settings
        why = out_of_patience(self.writer.history, s.best_metric, s.patience)
        if why:
            self._display.say(why)
        return why is not None

    def _step(self, state, step, batches, train_step):
        before = time.perf_counter()
        batch = put_batch(next(batches), self.mesh)
        waited = time.perf_counter() - before if is_idle(self._pending) else 0.0
        self._throughput.add(self.data.batch_size, waited)
        threat = self.threat_at(step // self.data.steps_per_epoch)
        state, metrics = train_step(state, batch, threat)
        if self._must_wait:
            jax.block_until_ready(state)
        if self.guard is not None:
            self.guard.look(state, batch, threat, step + 1, wait=self._must_wait)
        self._pending.append((step, metrics))
        self._after_step(state, step + 1)
        return state

    def _after_step(self, state, done):
        settings, per_epoch = self.settings, self.data.steps_per_epoch
        end_of_epoch, stopping = done % per_epoch == 0, bool(self.stop)
        saving = end_of_epoch or done % settings.save_every == 0 or stopping
        if done == 1 or done % settings.log_every == 0 or saving:
            self._log(done)  # raises on NaN, so what is saved below is sound
            self._went_back = self.guard is not None and self.guard.went_back(
                self.writer, self.checkpoints, per_epoch, self._display.say
            )
            if self._went_back:
                return
        metrics = None
        if end_of_epoch and not stopping:
            metrics = self._validate(state, done)
        if saving:
            if self.guard is not None:
                self.guard.protect(self.checkpoints, self.writer.history)
            self.checkpoints.save(state, self.config, metrics)
        if self.stop and saving:
            self.checkpoints.wait()
            raise Interrupted(done, self.stop.signal or 0)
        self._display.step(done)

    def _log(self, done):
        if not self._pending:
            return
        values = {f"train/{k}": v for k, v in fetch(self._pending).items()}
        self._pending = []
        epoch = (done - 1) // self.data.steps_per_epoch
        update_began = done - 1 - (done - 1) % self.settings.accumulate
        values |= {
            "epoch": done / self.data.steps_per_epoch,
            "train/eps": float(self.threat_at(epoch).eps),
            "train/lr": self.lr_at(update_began / self.data.steps_per_epoch),
            **self._throughput.read(),
        }
        if self.data.skipped():
            values["data/skipped"] = self.data.skipped()
        if done == 1:  # the first step compiled; its rate says nothing
            for name in ("images_per_second", "mfu", "data_wait"):
                del values[name]
        self.writer.write(done, values)
        self._display.show(values)

    def _validate(self, state, done):
        """Accuracy on the held-out split; None when a signal cut it short."""
        variables = evaluation_variables(state)
        values = validate(
            lambda batch: self._eval_step(variables, batch, self.threat, self.key),
            self.data.val(),
            self.mesh,
            stop=lambda: bool(self.stop),
            wait=self._must_wait,
        )
        if values is None:
            return None
        epoch = done / self.data.steps_per_epoch
        self.writer.write(done, {"epoch": epoch, **values})
        self._display.epoch(epoch, values)
        self._throughput.restart()
        return values

    def _validated(self, step):
        return any(r["step"] == step and "val/loss" in r for r in self.writer.history)
