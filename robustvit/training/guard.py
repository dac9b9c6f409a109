"""What a run does with its watchdog: reads it, warns, goes back when that is asked for.

    guard = Guard(watchdog, model, workdir)
    guard.look(state, batch, threat, done)                  # every step; mostly nothing
    if guard.went_back(writer, checkpoints, steps_per_epoch, say):
        ...                                                 # start from the newest

A checkpoint is sound once a later reading is quiet. Readings are in the metrics on
disk; rollbacks, and with them the step size, in `watchdog.json` beside them: a run
that was stopped goes on with both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from robustvit.threat import ThreatModel
from robustvit.training.checkpoint import Checkpoints
from robustvit.training.metrics import CollapsedError, MetricsWriter
from robustvit.training.watchdog import (
    History,
    Watchdog,
    alarm,
    explain,
    fallen,
    judge,
    last_quiet,
    make_reading,
)
from robustvit.types import Batch, Objective, TrainState

FILE = "watchdog.json"
TRIES = 2  # rollbacks to one checkpoint, before an older one is taken


class Alarm(NamedTuple):
    """A cause that readings agreed on, whether it is news, and how far it went."""

    step: int
    epoch: float
    text: str
    new: bool
    collapsed: bool


class Guard:
    """The watchdog of one run, with its past.

    Args:
      watchdog: what to look for.
      model: of the run.
      workdir: folder of the run, where a past may lie.
    """

    def __init__(self, watchdog: Watchdog, model: Any, workdir: Path):
        self.watchdog = watchdog
        self._path = workdir / FILE
        self._past = {"rollbacks": [], "unfinished": False}
        if self._path.exists():
            self._past = json.loads(self._path.read_text())
        self._reading = jax.jit(make_reading(model, watchdog))
        self._pending = []

    @property
    def rollbacks(self) -> list[dict[str, Any]]:
        """Those so far, oldest first."""
        return self._past["rollbacks"]

    @property
    def factor(self) -> float:
        """What the step size of training's attack is multiplied by now."""
        return self.watchdog.shrink ** len(self.rollbacks)

    def objective(self) -> Objective:
        """Training as it is now."""
        return self.watchdog.objective(self.factor)

    def look(
        self,
        state: TrainState,
        batch: Batch,
        threat: ThreatModel,
        done: int,
        *,
        wait: bool = False,
    ) -> None:
        """Start a reading if one is due after `done` steps; `wait` for it or not."""
        if done % self.watchdog.every == 0:
            values = self._reading(state, batch, threat)
            self._pending.append(
                (done, jax.block_until_ready(values) if wait else values)
            )

    def read(self, writer: MetricsWriter, steps_per_epoch: int) -> Alarm | None:
        """Write down the readings since the last call; the last alarm, if any."""
        pending, self._pending = self._pending, []
        found = None
        for (step, _), values in zip(
            pending, jax.device_get([values for _, values in pending]), strict=True
        ):
            values = {name: float(value) for name, value in values.items()}
            before, epoch = alarm(writer.history), step / steps_per_epoch
            values |= judge(values, self.watchdog.gap)
            shown = {f"watchdog/{name}": value for name, value in values.items()}
            rollbacks = {"watchdog/rollbacks": len(self.rollbacks)}
            writer.write(step, {"epoch": epoch, **shown, **rollbacks})
            cause = alarm(writer.history)
            if cause is not None:
                text = explain(cause, values, self.watchdog)
                collapsed = cause == "leaking" or fallen(writer.history)
                found = Alarm(step, epoch, text, cause != before, collapsed)
                if found.new:
                    writer.note(step, {"epoch": epoch, "watchdog/alarm": text})
        return found

    def went_back(
        self,
        writer: MetricsWriter,
        checkpoints: Checkpoints,
        steps_per_epoch: int,
        say: Callable[[str], None],
    ) -> bool:
        """Read, tell the person, and roll back if that is to be done."""
        alarm = self.read(writer, steps_per_epoch)
        if alarm is not None and alarm.new:
            say(f"WARNING: watchdog, step {alarm.step}: {alarm.text}")
        if alarm is None or self.watchdog.action == "warn" or not alarm.collapsed:
            return False
        say(self.roll_back(alarm, checkpoints, writer))
        return True

    def sound(self, checkpoints: Sequence[int], history: History) -> int | None:
        """The newest of these steps that a quiet reading came after, or at."""
        quiet = last_quiet(history)
        return max((s for s in checkpoints if s <= (quiet or 0)), default=None)

    def protect(self, checkpoints: Checkpoints, history: History) -> None:
        """Keep the sound checkpoint, if there may be a rollback."""
        if self.watchdog.action == "rollback":
            checkpoints.protect(self.sound(checkpoints.steps(), history))

    def roll_back(
        self, alarm: Alarm, checkpoints: Checkpoints, writer: MetricsWriter
    ) -> str:
        """Make the last sound checkpoint the newest; 0, the start, where none is.

        Gives the sentence for the person. Call it again after being cut off: nothing
        is lost in between.

        Raises:
          CollapsedError: if that was done often enough; the sound one is the newest
            then as well.
        """
        target = self._target(checkpoints.steps(), writer.history)
        often = len(self.rollbacks) >= self.watchdog.max_rollbacks
        if not often:
            event = {"from": alarm.step, "to": target, "why": alarm.text}
            self._remember([*self.rollbacks, event], unfinished=True)
        checkpoints.drop_after(target)
        writer.rewind(target)
        if often:
            raise CollapsedError(
                f"at step {alarm.step}: {alarm.text} Training was rolled back "
                f"{len(self.rollbacks)} times before; step {target} is kept"
            )
        self._remember(self.rollbacks, unfinished=False)
        size = self.watchdog.attack.step_size * self.factor
        text = (
            f"rollback {len(self.rollbacks)}: from step {alarm.step} to {target}, and "
            f"on with an attack step of {size * 255:.3g}/255 (was "
            f"{size / self.watchdog.shrink * 255:.3g}/255)"
        )
        # At the target's step, so that stopping and going on keeps it; the epoch is
        # that of the alarm.
        note = {"watchdog/alarm": alarm.text, "watchdog/rollback": text}
        writer.note(target, {"epoch": alarm.epoch, **note})
        return text

    def finish(self, checkpoints: Checkpoints) -> None:
        """Complete a rollback that was cut off by the end of the program."""
        if self._past["unfinished"]:
            checkpoints.drop_after(self.rollbacks[-1]["to"])
            self._remember(self.rollbacks, unfinished=False)

    def _target(self, steps, history):
        target = self.sound(steps, history) or 0
        tried = [event["to"] for event in self.rollbacks]
        while target and tried.count(target) >= TRIES:
            target = max((s for s in steps if s < target), default=0)
        return target

    def _remember(self, rollbacks, *, unfinished):
        self._past = {"rollbacks": rollbacks, "unfinished": unfinished}
        if jax.process_index() == 0:
            draft = self._path.with_name(self._path.name + ".tmp")
            draft.write_text(json.dumps(self._past, indent=1))
            os.replace(draft, self._path)
