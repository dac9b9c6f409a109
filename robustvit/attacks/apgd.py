"""APGD: projected gradient ascent with momentum that halves its own step size.

    attack = APGD("targeted_dlr").resolve("linf", num_classes=10)
    state = attack.start(x, y, target, chain, threat, keys)
    state = run(attack, forward, state, threat, steps=attack.steps + 1)

A step evaluates the point it finds in `state.x_adv`, does the book-keeping of the move
that led there, and moves. An example is done at its first misclassified point. `l1` is
another algorithm with the same losses: see apgd_l1.py.

References: Croce & Hein 2020, arXiv:2003.01690, Alg. 1; for l1 Croce & Hein 2021,
arXiv:2103.01208. Two habits of the authors' implementation that the paper does not
mention are kept: the first loss is compared with 0, and momentum after a return to the
best point still counts from the point that was left.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from robustvit import lookup
from robustvit.attacks import apgd_l1
from robustvit.attacks.climbing import (
    FEWEST_CLASSES,
    LOSSES,
    is_zero,
    norm2,
    value_and_gradient,
)
from robustvit.attacks.slots import KeyedForward, choose, fold, per_example
from robustvit.threat import ThreatModel
from robustvit.types import Images, Keys, Labels, PerExample

TINY = 1e-12
RHO = 0.75  # the step is halved unless this share of the moves raised the loss
MOMENTUM = 0.75
# norm: (restarts, targets) of AutoAttack's standard version.
STANDARD_BUDGET = {"linf": (1, 9), "l2": (1, 9), "l1": (5, 5)}


@dataclass(frozen=True)
class APGD:
    """Auto-PGD on a loss; a targeted loss goes through the likeliest wrong classes.

    Args:
      loss: "cross_entropy", "dlr", "targeted_dlr" or "targeted_cross_entropy".
      steps: gradient steps of one chain.
      restarts: random starts (per target); None is AutoAttack's number for the norm
        and the loss.
      targets: classes to aim at, likeliest first; None is AutoAttack's number.
      samples: draws of a randomised forward that a gradient is averaged over.

    Raises:
      ValueError: for an unknown loss, or a count below 1.
    """

    loss: str = "cross_entropy"
    steps: int = 100
    restarts: int | None = None
    targets: int | None = None
    samples: int = 1

    def __post_init__(self):
        lookup.check("loss", self.loss, LOSSES)
        for name in ("steps", "restarts", "targets", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")

    @property
    def targeted(self) -> bool:
        """Whether the loss needs a class to aim at."""
        return self.loss.startswith("targeted")

    @property
    def stride(self) -> int:
        """Steps between two looks of the host."""
        return 5

    @property
    def num_chains(self) -> int:
        """Targets times restarts."""
        return (self.restarts or 1) * (self.targets or 1)

    def resolve(self, norm: str, num_classes: int) -> APGD:
        """With the budget filled in, and losses and targets that the classes allow."""
        restarts, targets = STANDARD_BUDGET[norm]
        if self.targeted:
            restarts = self.restarts or 1
            targets = min(self.targets or targets, num_classes - 1)
        else:
            restarts, targets = self.restarts or restarts, 1
        needed, instead = FEWEST_CLASSES.get(self.loss, (0, self.loss))
        loss = self.loss if num_classes >= needed else instead
        return dataclasses.replace(self, loss=loss, restarts=restarts, targets=targets)

    def rank(self, chain: int) -> int:
        """All restarts towards one class come before the next class."""
        return 1 + chain // (self.restarts or 1) if self.targeted else 0

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes of one step, per example."""
        return self.samples, self.samples

    def symptoms(self, state: Any) -> dict[str, Any]:
        """Signs of a loss that cannot be climbed, (b,) each."""
        found = {"zero-gradient": state.blind}
        if isinstance(state, apgd_l1.State):
            return found  # whose later stages may begin at their optimum
        return {**found, "plateau": state.loss_best <= state.loss_first}

    def start(
        self,
        x: Images,
        y: Labels,
        target: Labels,
        chain: Labels,
        threat: ThreatModel,
        keys: Keys,
    ) -> Any:
        """State at a random point on the sphere around x, clipped to [0, 1]."""
        if threat.norm == "l1":
            return apgd_l1.start(self, x, y, target, threat, keys)
        noise = jax.vmap(lambda key: _NOISE[threat.norm](key, x.shape[1:]))(keys)
        return initial_state(x, y, target, x + threat.radius * noise, threat, keys)

    def step(self, forward: KeyedForward, state: Any, threat: ThreatModel) -> Any:
        """Evaluate `state.x_adv`, then move on from it or from the best point."""
        if threat.norm == "l1":
            return apgd_l1.step(self, forward, state, threat)
        logits, loss, gradient = value_and_gradient(
            self.loss,
            self.samples,
            forward,
            state.x_adv,
            state.y,
            state.target,
            fold(state.keys, state.it),
        )
        state = record(state, loss, gradient)
        state, origin, gradient = review(self.steps, state, gradient)
        broken = logits.argmax(-1) != state.y
        done = broken | (state.it == self.steps)
        moved = move(state, origin, gradient, threat)
        return state.replace(
            x_adv=choose(done, state.x_adv, moved),
            x_old=origin,
            it=state.it + 1,
            done=done,
            broken=broken,
        )


@struct.dataclass
class State:
    """Of one chain per slot; images (b, h, w, 3), the rest (b,)."""

    x: Any
    y: Any
    target: Any
    keys: Any
    x_adv: Any  # the next point to evaluate, or the result
    x_old: Any
    x_best: Any
    gradient_best: Any
    it: Any
    done: Any
    broken: Any
    step_size: Any
    loss_first: Any
    loss_best: Any
    loss_prev: Any
    loss_check: Any  # best loss at the last review
    num_up: Any  # moves that raised the loss since then
    halved: Any  # at the last review
    blind: Any  # the gradient at the start was zero


def initial_state(
    x: Images, y: Labels, target: Labels, x0: Images, threat: ThreatModel, keys: Keys
) -> State:
    """Nothing evaluated yet, about to evaluate x0 clipped to [0, 1]."""
    b = len(x)
    x0 = jnp.clip(x0, 0.0, 1.0)
    zeros, no = jnp.zeros(b), jnp.zeros(b, bool)
    return State(
        x=jnp.asarray(x),
        y=jnp.asarray(y),
        target=jnp.asarray(target),
        keys=keys,
        x_adv=x0,
        x_old=x0,
        x_best=x0,
        gradient_best=jnp.zeros_like(x0),
        it=jnp.zeros(b, jnp.int32),
        done=no,
        broken=no,
        step_size=jnp.full(b, 2.0) * threat.eps,
        loss_first=zeros,
        loss_best=jnp.full(b, -jnp.inf),
        loss_prev=zeros,
        loss_check=zeros,
        num_up=jnp.zeros(b, jnp.int32),
        halved=~no,
        blind=no,
    )


def reviews(steps: int) -> np.ndarray:
    """By the number of moves done: the moves since the last review, 0 where none is.

    The first comes after 22 % of the steps, then they come ever sooner, down to 6 %.
    """
    window, least = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1)
    shrink = max(int(0.03 * steps), 1)
    table, at = np.zeros(steps + 1, np.int32), window
    while at <= steps:
        table[at] = window
        window = max(window - shrink, least)
        at += window
    return table


def record(state: Any, loss: PerExample, gradient: Images) -> Any:
    """Best point so far, and whether the loss went up."""
    first = state.it == 0
    better = loss > state.loss_best
    loss_best = jnp.where(better, loss, state.loss_best)
    up = ~first & (loss > state.loss_prev)
    return state.replace(
        x_best=choose(better, state.x_adv, state.x_best),
        gradient_best=choose(better, gradient, state.gradient_best),
        loss_first=jnp.where(first, loss, state.loss_first),
        loss_best=loss_best,
        loss_check=jnp.where(first, loss, state.loss_check),
        # The start's loss is not used: the authors' first comparison is with 0.
        loss_prev=jnp.where(first, 0.0, loss),
        num_up=state.num_up + up,
        blind=jnp.where(first, is_zero(gradient), state.blind),
    )


def review(steps: int, state: Any, gradient: Images) -> tuple[Any, Images, Images]:
    """Where too few moves helped: halve the step and go back to the best point."""
    window = jnp.asarray(reviews(steps))[state.it]
    here, few = window > 0, state.num_up <= RHO * window
    stalled = ~state.halved & (state.loss_check >= state.loss_best)
    halve = here & (few | stalled)
    state = state.replace(
        step_size=jnp.where(halve, state.step_size / 2, state.step_size),
        loss_check=jnp.where(here, state.loss_best, state.loss_check),
        halved=jnp.where(here, halve, state.halved),
        num_up=jnp.where(here, 0, state.num_up),
    )
    origin = choose(halve, state.x_best, state.x_adv)
    return state, origin, choose(halve, state.gradient_best, gradient)


def move(state: Any, origin: Images, gradient: Images, threat: ThreatModel) -> Images:
    """A projected step, averaged with the previous move, projected again."""
    project = _project_l2 if threat.norm == "l2" else lambda z, x, t: t.project(z, x)
    size = per_example(state.step_size)
    if threat.norm == "linf":
        direction = jnp.sign(gradient)
    else:
        direction = gradient / (norm2(gradient) + TINY)
    a = per_example(jnp.where(state.it == 0, 1.0, MOMENTUM))
    z = project(origin + size * direction, state.x, threat)
    mixed = origin + a * (z - origin) + (1 - a) * (origin - state.x_old)
    return project(mixed, state.x, threat)


def _project_l2(x_adv, x, threat):
    """As the authors round it, which `threat.project` does not."""
    delta = x_adv - x
    size = norm2(delta)
    scaled = delta / (size + TINY) * jnp.minimum(threat.radius, size)
    return jnp.clip(x + scaled, 0.0, 1.0)


def _noise_linf(key, shape):
    noise = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
    return noise / jnp.abs(noise).max()


def _noise_l2(key, shape):
    noise = jax.random.normal(key, shape)
    return noise / (jnp.linalg.norm(noise) + TINY)


_NOISE = {"linf": _noise_linf, "l2": _noise_l2}
