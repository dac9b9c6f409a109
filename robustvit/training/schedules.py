"""Learning-rate and eps schedules: plain functions of the epoch, counted from 0.

Both are constant within an epoch, as in timm and in the Light Recipe.

    lr_at = cosine(5e-4, epochs=100, warmup_epochs=10, warmup_lr=1e-6, min_lr=1e-5)
    lr_at(0), lr_at(10), lr_at(105)        # 1e-06, 4.88e-04, 1e-05
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import optax

EpochSchedule = Callable[[int], float]


def cosine(
    lr: float,
    *,
    epochs: int,
    warmup_epochs: int = 0,
    warmup_lr: float = 0.0,
    min_lr: float = 0.0,
) -> EpochSchedule:
    """Linear warm-up, half a cosine over `epochs`, then `min_lr` for ever (cool-down).

    As in timm, warm-up does not shift the cosine: the rate drops a little where the
    one ends and the other takes over.
    """

    def at(epoch):
        if epoch < warmup_epochs:
            return _warm(lr, epoch, warmup_epochs, warmup_lr)
        if epoch >= epochs:
            return min_lr
        return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * epoch / epochs))

    return at


def step_decay(
    lr: float,
    *,
    every: int,
    rate: float = 0.1,
    warmup_epochs: int = 0,
    warmup_lr: float = 0.0,
) -> EpochSchedule:
    """Multiply by `rate` every `every` epochs."""

    def at(epoch):
        if epoch < warmup_epochs:
            return _warm(lr, epoch, warmup_epochs, warmup_lr)
        return lr * rate ** (epoch // every)

    return at


def constant(
    lr: float, *, warmup_epochs: int = 0, warmup_lr: float = 0.0
) -> EpochSchedule:
    """The same rate throughout, after a warm-up."""

    def at(epoch):
        if epoch < warmup_epochs:
            return _warm(lr, epoch, warmup_epochs, warmup_lr)
        return lr

    return at


def _warm(lr, epoch, warmup_epochs, warmup_lr):
    return warmup_lr + epoch * (lr - warmup_lr) / warmup_epochs


def scale_lr(lr: float, batch_size: int, rule: str, base: int = 512) -> float:
    """Rescale a rate quoted for `base` images: "linear", "sqrt" (timm's) or "none"."""
    factors = {"none": 1.0, "linear": batch_size / base}
    factors["sqrt"] = math.sqrt(factors["linear"])
    if rule not in factors:
        raise ValueError(f"lr scaling {rule!r} is not one of {', '.join(factors)}")
    return lr * factors[rule]


def per_step(at: EpochSchedule, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """The schedule as a function of the step, for optax; a table, exact in float32."""
    table = [at(epoch) for epoch in range(epochs)]

    def schedule(step):
        epoch = jnp.minimum(step // steps_per_epoch, epochs - 1)
        return jnp.asarray(table, jnp.float32)[epoch]

    return schedule


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
