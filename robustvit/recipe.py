"""How a resolved config trains: learning rate, optimizer, settings, watchdog.

    lr_at = build_lr(c)
    tx = build_optimizer(c, lr_at, steps_per_epoch)

With `optim.accumulate=k`, a step is still one batch of `data.batch_size`: epochs, eps,
logs and checkpoints count steps. An update is k steps, so the rule that scales the
learning rate sees k batches, and EMA and momentum move once in k steps. Running
statistics of BatchNorm move at every step, as in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax

from robustvit import lookup
from robustvit.attacks import PGD
from robustvit.training import optim, schedules
from robustvit.training.settings import Settings
from robustvit.training.watchdog import Watchdog
from robustvit.types import Objective

Config = Any  # a ConfigDict, of whose keys type checkers know nothing

OPTIMIZERS = {"adamw": optim.adamw, "sgd": optim.sgd}
LR_SCHEDULES = {
    "cosine": schedules.cosine,
    "step": schedules.step_decay,
    "constant": schedules.constant,
}


def build_lr(c: Config) -> schedules.EpochSchedule:
    """Learning rate by epoch, the images of an update taken into account."""
    images = c.data.batch_size * c.optim.accumulate
    lr = schedules.scale_lr(c.optim.lr, images, c.optim.lr_scaling)
    args = dict(c.optim.schedule.args)
    if c.optim.schedule.name == "cosine":
        args["epochs"] = c.epochs
    at = lookup.build("schedule", LR_SCHEDULES, c.optim.schedule.name, lr, **args)
    return at if c.optim.schedule.by == "step" else schedules.held(at)


def build_optimizer(
    c: Config, lr_at: schedules.EpochSchedule, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The optimizer, with everything that is done to gradients inside."""
    schedule = schedules.per_step(
        lr_at,
        c.epochs + c.cooldown_epochs,
        steps_per_epoch // c.optim.accumulate,
        by=c.optim.schedule.by,
    )
    tx = lookup.build("optimizer", OPTIMIZERS, c.optim.name, schedule, **c.optim.args)
    return optim.partition(optim.accumulate(tx, c.optim.accumulate), c.trainable)


def whole_updates(steps_per_epoch: int, accumulate: int) -> int:
    """Steps per epoch, cut so that epochs end where updates do.

    What is left of a pass over the data begins the next one, as with batches.

    Raises:
      ValueError: if an epoch has not the steps for one update.
    """
    if not 1 <= accumulate <= steps_per_epoch:
        raise ValueError(
            f"optim.accumulate={accumulate} must be in [1, {steps_per_epoch}]: an "
            f"epoch has {steps_per_epoch} steps"
        )
    return steps_per_epoch - steps_per_epoch % accumulate


def build_watchdog(
    c: Config, attack: PGD, rebuild: Callable[[PGD], Objective]
) -> Watchdog | None:
    """The watchdog of a config, or None.

    Raises:
      ValueError: for numbers out of range, or if there is no attack to watch.
    """
    if not c.watchdog.every:
        return None
    if c.objective.name == "standard":
        raise ValueError(
            f"watchdog.every={c.watchdog.every}, but the objective standard has no "
            "attack to watch: set it to 0"
        )
    return Watchdog(attack, rebuild, **c.watchdog)


def build_settings(c: Config) -> Settings:
    """What the loop is told."""
    return Settings(
        epochs=c.epochs + c.cooldown_epochs,
        ema_decay=c.optim.ema_decay,
        accumulate=c.optim.accumulate,
        log_every=c.log.every,
        save_every=c.checkpoint.every,
        keep=c.checkpoint.keep,
        best_metric=c.checkpoint.best_metric,
        patience=c.checkpoint.patience,
        tensorboard=c.log.tensorboard,
        wandb_project=c.log.wandb_project,
    )
