"""Watchdog: is the attack of training still an attack? Asked while it can be helped.

Training with one or two steps can collapse within some hundred updates: the network
learns to mask the gradient that the attack follows, its loss falls, and a longer attack
finds it defenceless (catastrophic overfitting). Or the attack's own images carry the
label, and are classified better than clean ones (label leaking). Every so many steps
this compares, on an eighth of the batch and in evaluation mode, the attack of training
with a longer PGD at the same eps.

    watchdog = Watchdog(attack, rebuild=lambda attack: adversarial(model, attack))
    watchdog.cost(objective.forwards)       # 0.0125: of the work of training

References: Wong et al. 2020, arXiv:2001.03994; Andriushchenko & Flammarion 2020,
arXiv:2007.02617; Kurakin et al. 2017, arXiv:1611.01236 (leaking).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from robustvit import lookup, losses
from robustvit.attacks import PGD, TrainingAPGD
from robustvit.objectives.forward import eval_logits, example_keys
from robustvit.threat import ThreatModel
from robustvit.types import Batch, Metrics, Objective, PerExample, TrainState

ACTIONS = ("warn", "rollback")
CAUSES = ("masked", "leaking")
SHARE = 8  # one in so many images of the batch is looked at
IN_A_ROW = 2  # readings that must agree; a single one may be noise
# Standard errors by which a reading must exceed its limit: a healthy network at the
# limit is then called ill by chance in 1 of 44 readings, and twice in a row in 1 of
# 1,900. A collapse exceeds it by tens.
SURE = 2.0
TINY = 1e-12

Reading = Callable[[TrainState, Batch, ThreatModel], Metrics]
History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Watchdog:
    """When to look, what is too much, and what to do then.

    Args:
      attack: of training, as configured. It is what is compared with a longer attack
        even after rollbacks, so that readings before and after mean the same.
      rebuild: the objective of training, for another attack.
      every: steps between two readings.
      steps: of the longer attack, whose step is 2.5 eps / steps.
      gap: masked is where (loss of long - loss of short) / loss of long exceeds it.
      action: "warn", or also "rollback" to the last sound checkpoint, as soon as the
        accuracy under the longer attack has halved, or labels leak.
      shrink: factor on the training attack's step size at each rollback.
      max_rollbacks: the next alarm is an error.

    Raises:
      ValueError: for a number out of range, or a longer attack that is not longer.
    """

    attack: PGD
    rebuild: Callable[[PGD], Objective]
    every: int = 50
    steps: int = 10
    gap: float = 0.2
    action: str = "warn"
    shrink: float = 0.5
    max_rollbacks: int = 4

    def __post_init__(self):
        lookup.check("watchdog.action", self.action, ACTIONS)
        if self.every < 1:
            raise ValueError(f"watchdog.every={self.every} must be at least 1")
        if self.steps <= self.attack.steps:
            raise ValueError(
                f"watchdog.steps={self.steps} must be more than the "
                f"{self.attack.steps} of the attack of training"
            )
        for name, value in (("gap", self.gap), ("shrink", self.shrink)):
            if not 0 < value < 1:
                raise ValueError(f"watchdog.{name}={value} must be between 0 and 1")

    @property
    def forwards(self) -> float:
        """Forward passes of a batch that a reading costs, counted as in `Objective`."""
        short, long = self.attack.forwards + 1, 2 * self.steps + 1
        return (short + long + 1) / SHARE

    def cost(self, forwards: int) -> float:
        """Work of the readings over that of training, whose step has `forwards`."""
        return self.forwards / (self.every * forwards)

    def objective(self, factor: float) -> Objective:
        """Training with the step size times `factor`."""
        size = self.attack.step_size * factor
        return self.rebuild(replace(self.attack, step_size=size))


@struct.dataclass
class _StepsInEps(ThreatModel):
    """The same threat model, with steps in units of eps, which may be traced."""

    def ascent(self, x_adv, gradient, step_size):
        """The move of `step_size` times eps."""
        return ThreatModel.ascent(self, x_adv, gradient, step_size * self.radius)


def make_reading(model: Any, watchdog: Watchdog) -> Reading:
    """Build `(state, batch, threat) -> metrics`, to be jitted.

    `gap` and `leak` come with their standard errors; `robust_accuracy` is that under
    the longer attack. No randomness of the train step is used up.
    """

    def reading(state, batch, threat):
        # Every eighth row, not the first eighth: so each device has its part.
        images = batch["image"][::SHARE].astype(jnp.float32) / 255.0
        labels, index = batch["label"][::SHARE], batch["index"][::SHARE]
        key = jax.random.fold_in(state.key, state.step)
        k_short, k_long = jax.random.split(jax.random.split(key, 4)[3])

        def logits_of(x):
            return eval_logits(model, state.params, state.batch_stats, x)

        def loss_of(x):
            return losses.cross_entropy(logits_of(x), labels)

        short, long = watchdog.attack, PGD(watchdog.steps, 2.5 / watchdog.steps)
        x_short = short(loss_of, images, threat, example_keys(k_short, index))
        in_eps = _StepsInEps(threat.norm, threat.eps)
        x_long = long(loss_of, images, in_eps, example_keys(k_long, index))

        def right(x):
            return (logits_of(x).argmax(-1) == labels).astype(jnp.float32)

        return {
            **_gap(loss_of(x_short), loss_of(x_long)),
            **_leak(right(images), right(x_short)),
            "robust_accuracy": right(x_long).mean(),
        }

    return reading


def _gap(short: PerExample, long: PerExample) -> Metrics:
    """How much of the loss the short attack misses, and its error (delta method)."""
    top = jnp.maximum(long.mean(), TINY)
    gap = (long - short).mean() / top
    spread = jnp.sqrt(jnp.mean((long - short - gap * long) ** 2))
    return {"gap": gap, "gap_error": spread / (top * jnp.sqrt(len(long)))}


def _leak(clean: PerExample, attacked: PerExample) -> Metrics:
    """Accuracy after minus before the attack; its error as McNemar has it."""
    change = attacked - clean
    error = jnp.sqrt(jnp.sum(change**2)) / len(change)
    return {"leak": change.mean(), "leak_error": error}


def judge(values: Mapping[str, float], gap: float) -> dict[str, float]:
    """1.0 for each cause of alarm that a reading shows surely, else 0.0."""
    masked = values["gap"] - SURE * values["gap_error"] > gap
    leaking = values["leak"] > SURE * values["leak_error"]
    return {"masked": float(masked), "leaking": float(leaking)}


def alarm(history: History) -> str | None:
    """The cause that the last readings agree on, if they do."""
    readings = readings_of(history)[-IN_A_ROW:]
    for cause in CAUSES if len(readings) == IN_A_ROW else ():
        if all(r[f"watchdog/{cause}"] for r in readings):
            return cause
    return None


def fallen(history: History) -> bool:
    """Whether the longer attack finds half as many right as it once did, or fewer.

    A gap alone may also be what a network has that learned from a weak attack: after
    a rollback that is wanted, and no reason for another one.
    """
    right = [r["watchdog/robust_accuracy"] for r in readings_of(history)]
    # Over as many readings as an alarm takes, for less noise.
    windows = [
        sum(right[i : i + IN_A_ROW]) / IN_A_ROW
        for i in range(len(right) - IN_A_ROW + 1)
    ]
    return len(windows) > 1 and windows[-1] <= 0.5 * max(windows[:-1])


def last_quiet(history: History) -> int | None:
    """The step of the last reading without any cause; None without one."""
    quiet = [
        r["step"]
        for r in readings_of(history)
        if not any(r[f"watchdog/{cause}"] for cause in CAUSES)
    ]
    return quiet[-1] if quiet else None


def readings_of(history: History) -> list[Mapping[str, Any]]:
    """The records that are readings, oldest first."""
    return [record for record in history if "watchdog/masked" in record]


def explain(cause: str, values: Mapping[str, float], watchdog: Watchdog) -> str:
    """What is wrong and what helps, in two sentences."""
    kind = "APGD" if isinstance(watchdog.attack, TrainingAPGD) else "PGD"
    short = f"{kind}-{watchdog.attack.steps}"
    long = f"PGD-{watchdog.steps}"
    if cause == "masked":
        what = (
            f"gradient masking: {short}, the attack of training, misses "
            f"{values['gap']:.0%} of the loss that {long} finds (limit "
            f"{watchdog.gap:.0%}), under which {values['robust_accuracy']:.0%} of the "
            "training images are classified right"
        )
    else:
        what = (
            f"label leaking: training images are classified right more often after "
            f"{short}, the attack of training, than before it "
            f"({values['leak']:+.0%})"
        )
    helps = ["more steps of attack", "a smaller step size"]
    if not watchdog.attack.random_start:
        helps.append("a random start")
    if watchdog.action == "warn":
        helps.append("watchdog.action=rollback")
    return f"{what}. What helps: {', '.join(helps[:-1])} or {helps[-1]}."
