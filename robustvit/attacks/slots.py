"""Attacks as per-example state machines, and how many steps of one are taken.

A *slot* is one row of a batch, working on one example. Every array of an attack's state
has the slots as its leading axis, and every slot counts its own iterations, so that a
slot can be given a new example while its neighbours are in the middle of theirs.

    state = attack.start(x, y, target, chain, threat, keys)
    state = run(attack, forward, state, threat, steps=10)
    state.done, state.broken, state.x_adv

`forward` takes images and one key per example (what is random about a randomised
defence); `deterministic(f)` makes one of a function of images alone. An attack that is
tried several times on an example, from new starts or towards other classes, calls each
try a *chain*; chain c aims at the wrong class with the `rank(c)`-th largest logit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from robustvit.threat import ThreatModel
from robustvit.types import Images, Keys, Labels, Logits, PyTree

KeyedForward = Callable[[Images, Keys], Logits]


@runtime_checkable
class SlotAttack(Protocol):
    """What the engine asks of an attack: a frozen dataclass with these methods."""

    @property
    def stride(self) -> int:
        """Steps between two looks of the host at who is done."""
        ...

    @property
    def num_chains(self) -> int:
        """Tries per example, after `resolve`."""
        ...

    def resolve(self, norm: str, num_classes: int) -> Any:
        """The same attack with nothing left open, fit for that norm and problem."""
        ...

    def rank(self, chain: int) -> int:
        """Which class a chain aims at, by rank of the clean logits; 0 is none."""
        ...

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes of one step, per example."""
        ...

    def symptoms(self, state: PyTree) -> dict[str, Any]:
        """What a finished chain that broke nothing tells of the model, (b,) each."""
        ...

    def start(
        self,
        x: Images,
        y: Labels,
        target: Labels,
        chain: Labels,
        threat: ThreatModel,
        keys: Keys,
    ) -> PyTree:
        """State before the first step; runs no model."""
        ...

    def step(self, forward: KeyedForward, state: PyTree, threat: ThreatModel) -> PyTree:
        """One iteration of every slot; `state.broken` implies `state.done`."""
        ...


def advance(
    attack: Any, forward: KeyedForward, state: PyTree, threat: ThreatModel
) -> PyTree:
    """One step; slots that are done stay as they were when they finished."""
    moved = attack.step(forward, state, threat)
    return jax.tree.map(lambda old, new: choose(state.done, old, new), state, moved)


def run(
    attack: Any,
    forward: KeyedForward,
    state: PyTree,
    threat: ThreatModel,
    *,
    steps: int,
) -> PyTree:
    """Several steps, as one loop."""
    return lax.fori_loop(
        0, steps, lambda _, state: advance(attack, forward, state, threat), state
    )


def choose(condition: Any, yes: Any, no: Any) -> Any:
    """`jnp.where` with a condition (b,) for arrays (b, ...)."""
    return jnp.where(
        condition.reshape(condition.shape + (1,) * (yes.ndim - 1)), yes, no
    )


def per_example(values: Any) -> Any:
    """(b,) as (b, 1, 1, 1), to go with images."""
    return values[:, None, None, None]


def fold(keys: Keys, number: Any) -> Keys:
    """A new key for each example; `number` is one for all, or (b,)."""
    return jax.vmap(jax.random.fold_in, (0, None if jnp.ndim(number) == 0 else 0))(
        keys, number
    )


def deterministic(forward: Callable[[Images], Logits]) -> KeyedForward:
    """A function of images alone, as one that gets keys too."""
    return lambda images, keys: forward(images)
