"""Learning-rate and eps schedules: plain functions of the epoch, counted from 0.

Both are constant within an epoch, as in timm and in the Light Recipe; learning rates
also take fractions of an epoch, for a rate that changes at every update.

    lr_at = cosine(5e-4, epochs=100, warmup_epochs=10, warmup_lr=1e-6, min_lr=1e-5)
    lr_at(0), lr_at(10), lr_at(105)        # 1e-06, 4.88e-04, 1e-05
    lr_at(0.5)                             # 2.595e-05
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robustvit import lookup

EpochSchedule = Callable[[Any], Any]  # epoch -> rate: numbers, or traced
# (epoch, numpy or jax.numpy) -> rate
_Curve = Callable[[Any, Any], Any]

BY = ("epoch", "step")


def cosine(
    lr: float,
    *,
    epochs: int,
    warmup_epochs: int = 0,
    warmup_lr: float = 0.0,
    min_lr: float = 0.0,
    begin: int = 0,
) -> EpochSchedule:
    """Linear warm-up, a cosine that ends at `epochs`, then `min_lr` for ever.

    As in timm, warm-up does not shift the cosine: the rate drops a little where the
    one ends and the other takes over. With `begin=warmup_epochs` the cosine begins
    there, as in Revisiting-AT (Singh et al. 2023, arXiv:2303.01870), without a drop.

    Raises:
      ValueError: if the cosine does not begin before its end.
    """
    if not 0 <= begin < epochs:
        raise ValueError(f"the cosine's begin={begin} must be in [0, {epochs})")

    def curve(epoch, array):
        done = array.clip((epoch - begin) / (epochs - begin), 0.0, 1.0)
        return min_lr + 0.5 * (lr - min_lr) * (1 + array.cos(math.pi * done))

    return _warmed(curve, lr, warmup_epochs, warmup_lr)


def step_decay(
    lr: float,
    *,
    every: int,
    rate: float = 0.1,
    warmup_epochs: int = 0,
    warmup_lr: float = 0.0,
) -> EpochSchedule:
    """Multiply by `rate` every `every` epochs."""

    def curve(epoch, array):
        return lr * rate ** array.floor(epoch / every)

    return _warmed(curve, lr, warmup_epochs, warmup_lr)


def constant(
    lr: float, *, warmup_epochs: int = 0, warmup_lr: float = 0.0
) -> EpochSchedule:
    """The same rate throughout, after a warm-up."""
    return _warmed(lambda epoch, array: lr, lr, warmup_epochs, warmup_lr)


def _warmed(curve: _Curve, lr, warmup_epochs, warmup_lr) -> EpochSchedule:
    """`curve` from the end of a linear warm-up on; float64 unless traced."""

    def at(epoch):
        traced = isinstance(epoch, jax.Array)
        array = jnp if traced else np
        warm = warmup_lr + epoch * (lr - warmup_lr) / max(warmup_epochs, 1)
        rate = array.where(epoch < warmup_epochs, warm, curve(epoch, array))
        return rate if traced else float(rate)

    return at


def held(at: EpochSchedule) -> EpochSchedule:
    """The same schedule, constant within an epoch."""
    return lambda epoch: at(math.floor(epoch))


def scale_lr(lr: float, batch_size: int, rule: str, base: int = 512) -> float:
    """Rescale a rate quoted for `base` images: "linear", "sqrt" (timm's) or "none"."""
    factors = {"none": 1.0, "linear": batch_size / base}
    factors["sqrt"] = math.sqrt(factors["linear"])
    if rule not in factors:
        raise ValueError(f"lr scaling {rule!r} is not one of {', '.join(factors)}")
    return lr * factors[rule]


def per_step(
    at: EpochSchedule, epochs: int, steps_per_epoch: int, *, by: str = "epoch"
) -> optax.Schedule:
    """The schedule as a function of the update, for optax.

    Args:
      at: rate by epoch.
      epochs: total; it stays where it is afterwards.
      steps_per_epoch: updates per epoch.
      by: "epoch" keeps the rate within an epoch (a table, exact in float32); "step"
        takes it at the fraction of the epoch that is done, before each update.

    Raises:
      ValueError: if `by` is neither.
    """
    lookup.check("optim.schedule.by", by, BY)
    table = [at(epoch) for epoch in range(epochs)]

    def by_epoch(step):
        epoch = jnp.minimum(step // steps_per_epoch, epochs - 1)
        return jnp.asarray(table, jnp.float32)[epoch]

    def by_step(step):
        epoch, step = jnp.divmod(jnp.asarray(step, jnp.int32), steps_per_epoch)
        # Whole and fraction apart: their sum is rounded once only.
        return jnp.asarray(at(epoch + step / steps_per_epoch), jnp.float32)

    return by_epoch if by == "epoch" else by_step


def eps_schedule(
    name: str, eps: float, *, warmup_epochs: int = 0, zero_epochs: int = 0
) -> EpochSchedule:
    """Ramp of the attack's radius: "linear", "sine" or "constant".

    For `zero_epochs` it is 0; a ramp then starts from 0 and ends at `warmup_epochs`,
    counted from the beginning (so with both, it jumps at the end, as published).

    Reference: Debenedetti et al. 2023, arXiv:2209.07399, section 4.
    """
    ramps = {
        "linear": lambda t: t,
        "sine": lambda t: 0.5 * (1 + math.sin(math.pi * (t - 0.5))),
        "constant": lambda _: 1.0,
    }
    if name not in ramps:
        raise ValueError(f"eps schedule {name!r} is not one of {', '.join(ramps)}")

    def at(epoch):
        if epoch < zero_epochs:
            return 0.0
        if epoch >= warmup_epochs:
            return eps
        return eps * ramps[name]((epoch - zero_epochs) / warmup_epochs)

    return at
