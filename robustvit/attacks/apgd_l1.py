"""APGD for l1: sparse steps, and three stages of shrinking radius.

An l1 step along the gradient puts all its length on one pixel; here it is spread over
as many pixels as the best perturbation so far suggests. A chain passes through radii
3 eps, 2 eps and eps, each stage beginning at the best point of the one before.

Used through `APGD` (apgd.py) where the threat's norm is "l1".

Reference: Croce & Hein 2021, arXiv:2103.01208.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from robustvit.attacks.climbing import is_zero, value_and_gradient
from robustvit.attacks.slots import KeyedForward, choose, fold, per_example
from robustvit.threat import ThreatModel
from robustvit.types import Images, Keys, Labels

RADII = (3.0, 2.0, 1.0)
SHARES = (0.3, 0.3)  # of the steps, rounded up; the last stage has the rest
SPARSER = 1.5  # the next step moves this much fewer pixels than were changed so far
SHRINK = 1.5  # of the step size at a review that changed nothing
LEAST = 10.0  # the step size stays above eps / LEAST
STABLE = 0.95  # a smaller ratio of changed pixels counts as progress


@struct.dataclass
class State:
    """Of one chain per slot; images (b, h, w, 3), the rest (b,)."""

    x: Any
    y: Any
    target: Any
    keys: Any
    x_adv: Any
    x_best: Any
    gradient_best: Any
    it: Any
    done: Any
    broken: Any
    step_size: Any
    loss_best: Any
    blind: Any  # the gradient at a stage's start was zero
    density: Any  # share of the pixels that a step moves
    num_changed: Any  # at the last review


class Stages(NamedTuple):
    """By evaluation: radius in eps, is it a stage's first or last one, a review."""

    radius: np.ndarray
    first: np.ndarray
    last: np.ndarray
    review: np.ndarray


def stages(steps: int) -> Stages:
    """A stage of n moves is n + 1 evaluations, reviewed every max(int(n / 25), 1)."""
    lengths = [math.ceil(share * steps) for share in SHARES]
    lengths.append(max(steps - sum(lengths), 1))
    columns = []
    for radius, length in zip(RADII, lengths, strict=True):
        number = np.arange(length + 1)
        every = max(int(0.04 * length), 1)
        columns.append(
            Stages(
                np.full(length + 1, radius, np.float32),
                number == 0,
                number == length,
                (number > 0) & (number % every == 0),
            )
        )
    return Stages(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def start(
    attack: Any, x: Images, y: Labels, target: Labels, threat: ThreatModel, keys: Keys
) -> State:
    """Gaussian noise, projected to the first stage's radius."""
    noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
    eps = jnp.full(len(x), RADII[0]) * threat.eps
    return initial_state(x, y, target, _project(x + noise, x, eps), keys)


def initial_state(
    x: Images, y: Labels, target: Labels, x0: Images, keys: Keys
) -> State:
    """About to evaluate x0."""
    b = len(x)
    zeros, no = jnp.zeros(b), jnp.zeros(b, bool)
    return State(
        x=jnp.asarray(x),
        y=jnp.asarray(y),
        target=jnp.asarray(target),
        keys=keys,
        x_adv=x0,
        x_best=x0,
        gradient_best=jnp.zeros_like(x0),
        it=jnp.zeros(b, jnp.int32),
        done=no,
        broken=no,
        step_size=zeros,
        loss_best=zeros,
        blind=no,
        density=zeros,
        num_changed=zeros,
    )


def step(attack: Any, forward: KeyedForward, state: Any, threat: ThreatModel) -> Any:
    """Evaluate `state.x_adv`, then move, or go on to the next stage."""
    table = stages(attack.steps)
    # A slot that is done is not used, but it must not read past the table.
    at = jnp.minimum(state.it, len(table.first) - 1)
    first, last, review = (
        jnp.asarray(column)[at] for column in (table.first, table.last, table.review)
    )
    eps = jnp.asarray(table.radius)[at] * threat.eps
    logits, loss, gradient = value_and_gradient(
        attack.loss,
        attack.samples,
        forward,
        state.x_adv,
        state.y,
        state.target,
        fold(state.keys, state.it),
    )
    state = _enter_stage(state, first, eps, gradient)
    better = loss > state.loss_best
    state = state.replace(
        x_best=choose(better, state.x_adv, state.x_best),
        gradient_best=choose(better, gradient, state.gradient_best),
        loss_best=jnp.where(better, loss, state.loss_best),
    )
    state, origin, gradient = _review(state, review, eps, gradient)
    moved = _project(
        origin + _sparse_step(gradient, state.density, state.step_size),
        state.x,
        eps,
    )
    next_eps = jnp.asarray(np.append(table.radius[1:], 1.0))[at] * threat.eps
    shrunk = _project(state.x_best, state.x, next_eps)
    # Only the last stage is inside the threat model.
    final = jnp.asarray(table.radius)[at] == RADII[-1]
    broken = final & (logits.argmax(-1) != state.y)
    done = broken | (at == len(table.first) - 1)
    return state.replace(
        x_adv=choose(done, state.x_adv, choose(last, shrunk, moved)),
        it=state.it + 1,
        done=done,
        broken=broken,
    )


def _enter_stage(state, first, eps, gradient):
    changed = _num_changed(state.x_adv, state.x)
    return state.replace(
        loss_best=jnp.where(first, -jnp.inf, state.loss_best),
        blind=jnp.where(first, is_zero(gradient), state.blind),
        step_size=jnp.where(first, eps, state.step_size),
        density=jnp.where(first, _next_density(changed, state.x), state.density),
        num_changed=jnp.where(first, changed, state.num_changed),
    )


def _review(state, here, eps, gradient):
    """Fewer pixels than before: go on from the best point. Else: smaller steps."""
    changed = _num_changed(state.x_best, state.x)
    progress = here & (changed / jnp.maximum(state.num_changed, 1.0) < STABLE)
    size = jnp.clip(
        jnp.where(progress, eps, state.step_size / SHRINK), eps / LEAST, eps
    )
    density = _next_density(changed, state.x)
    state = state.replace(
        step_size=jnp.where(here, size, state.step_size),
        density=jnp.where(here, density, state.density),
        num_changed=jnp.where(here, changed, state.num_changed),
    )
    origin = choose(progress, state.x_best, state.x_adv)
    return state, origin, choose(progress, state.gradient_best, gradient)


def _num_changed(x_adv, x):
    return jnp.sum(x_adv != x, (1, 2, 3)).astype(jnp.float32)


def _next_density(changed, x):
    return changed / math.prod(x.shape[1:]) / SPARSER


def _sparse_step(gradient, density, size):
    """Signs of the largest gradients, of l1 length `size` in all."""
    magnitude = jnp.abs(gradient).reshape(len(gradient), -1)
    n = magnitude.shape[1]
    index = jnp.clip((1 - density) * n, 0, n - 1).astype(jnp.int32)
    threshold = per_example(order_statistic(magnitude, index))
    signs = jnp.sign(gradient) * (jnp.abs(gradient) >= threshold)
    length = jnp.sum(jnp.abs(signs), (1, 2, 3), keepdims=True)
    return per_example(size) * signs / (length + 1e-10)


def order_statistic(values: Any, index: Any) -> Any:
    """The `index`-th smallest (from 0) of each row of non-negative floats, unsorted.

    Their bit patterns are ordered as they are, so 31 halvings find it exactly.
    """
    bits = lax.bitcast_convert_type(values, jnp.int32)

    def halve(_, bounds):
        low, high = bounds  # the answer is in (low, high]
        middle = low + (high - low) // 2
        enough = jnp.sum(bits <= middle[:, None], 1) > index
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    top = jnp.max(bits, 1)
    _, found = lax.fori_loop(0, 31, halve, (jnp.full_like(top, -1), top))
    return lax.bitcast_convert_type(found, jnp.float32)


def _project(x_adv, x, eps):
    return ThreatModel("l1", eps).project(x_adv, x)
