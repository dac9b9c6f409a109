"""Square: random search with squares of +-eps, blind to gradients.

    attack = Square(queries=5000)
    state = attack.start(x, y, target, chain, threat, keys)
    state = run(attack, forward, state, threat, steps=attack.queries + 1)

A step proposes a change of the best image so far, asks the model, and keeps it if the
margin fell. The first query is the start itself: vertical stripes in linf, a grid of
bumps in l2 and l1.

Reference: Andriushchenko et al. 2020, arXiv:1912.00049, with AutoAttack's constants.
Unlike theirs, the windows are drawn for each example by itself and reach the last row
and column; `compat=True` draws them as they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from robustvit import losses
from robustvit.attacks import square_bumps
from robustvit.attacks.slots import KeyedForward, choose, fold
from robustvit.threat import ThreatModel
from robustvit.types import Images, Keys, Labels

# The share of pixels in a window is p, halved after each of these queries.
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square:
    """Random search; needs no gradients, so it sees through masked ones.

    Args:
      queries: forward passes after the first.
      p: share of the pixels in the first windows.
      restarts: chains from new random starts.
      compat: draw windows as the authors' code does: the same ones for all examples
        (in linf with their signs), and never over the last row or column.

    Raises:
      ValueError: for counts below 1, or p outside (0, 1].
    """

    queries: int = 5000
    p: float = 0.8
    restarts: int = 1
    compat: bool = False

    def __post_init__(self):
        if self.queries < 1 or self.restarts < 1 or not 0 < self.p <= 1:
            raise ValueError(f"{self}: wanted counts >= 1 and p in (0, 1]")

    @property
    def stride(self) -> int:
        """Steps between two looks of the host: a query is a third of a gradient."""
        return 20

    @property
    def num_chains(self) -> int:
        """One per restart."""
        return self.restarts

    def resolve(self, norm: str, num_classes: int) -> Square:
        """Itself: nothing depends on the problem."""
        return self

    def rank(self, chain: int) -> int:
        """Untargeted."""
        return 0

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes of one step, per example."""
        return 1, 0

    def symptoms(self, state: Any) -> dict[str, Any]:
        """None that would tell of the model."""
        return {}

    def start(
        self,
        x: Images,
        y: Labels,
        target: Labels,
        chain: Labels,
        threat: ThreatModel,
        keys: Keys,
    ) -> State:
        """About to make the first query."""
        b, no = len(x), jnp.zeros(len(x), bool)
        return State(
            x=jnp.asarray(x),
            y=jnp.asarray(y),
            keys=keys,
            x_adv=jnp.asarray(x),
            margin=jnp.full(b, jnp.inf),
            it=jnp.zeros(b, jnp.int32),
            done=no,
            broken=no,
        )

    def step(self, forward: KeyedForward, state: Any, threat: ThreatModel) -> Any:
        """One query of every slot."""
        keys = fold(state.keys, state.it)
        propose = _propose_linf if threat.norm == "linf" else square_bumps.propose
        sizes = window_sizes(self.queries, self.p, state.x.shape[1:3], threat.norm)
        k_window = k_own = fold(keys, 0)
        if self.compat:
            same = jnp.broadcast_to(jax.random.key(0), keys.shape)
            k_window = fold(same, state.it)
        place = square_bumps.Placing(k_window, int(not self.compat))
        x_new = propose(state, sizes, threat, k_own, place)
        logits = forward(x_new, fold(keys, 1))
        margin = -losses.margin(logits, state.y)
        better = margin < state.margin
        wrong = logits.argmax(-1) != state.y
        accept = better | wrong
        return state.replace(
            x_adv=choose(accept, x_new, state.x_adv),
            margin=jnp.where(accept, margin, state.margin),
            it=state.it + 1,
            done=wrong | (state.it == self.queries),
            broken=wrong,
        )


@struct.dataclass
class State:
    """Of one chain per slot; images (b, h, w, 3), the rest (b,)."""

    x: Any
    y: Any
    keys: Any
    x_adv: Any  # best image so far
    margin: Any  # its margin: true logit minus the best wrong one
    it: Any
    done: Any
    broken: Any


def window_sizes(
    queries: int, p: float, shape: tuple[int, int], norm: str
) -> np.ndarray:
    """Side of the square by query; entry 0, the start, is not used.

    In l2 and l1 sides are odd and at least 3.
    """
    number = np.maximum(np.arange(queries + 1) - 1, 0)
    halvings = (number[:, None] > np.array(HALVED_AFTER)).sum(1)
    side = np.round(np.sqrt(p / 2.0**halvings * shape[0] * shape[1])).astype(int)
    if norm != "linf":
        side = np.maximum(side, 3)
        side += side % 2 == 0
    return np.clip(side, 1, min(shape)).astype(np.int32)


def _propose_linf(state, sizes, threat, keys, place):
    """Stripes at first; then one window to x + eps or x - eps, channel by channel."""
    _, height, width, channels = state.x.shape
    side = jnp.asarray(sizes)[state.it]

    def draw(key, k_window, side):
        k_stripes, _, _ = jax.random.split(key, 3)
        _, k_place, k_signs = jax.random.split(k_window, 3)
        stripes = jax.random.rademacher(k_stripes, (1, width, channels))
        low = square_bumps.corner(k_place, side, height, width, place.last)
        rows, columns = square_bumps.window(low, side, height, width)
        inside = rows[:, None, None] & columns[None, :, None]
        signs = jax.random.rademacher(k_signs, (1, 1, channels))
        return stripes.astype(jnp.float32), inside * signs.astype(jnp.float32)

    stripes, change = jax.vmap(draw)(keys, place.keys, side)
    first = state.x + threat.radius * stripes
    later = state.x_adv + 2 * threat.radius * change
    return threat.project(choose(state.it == 0, first, later), state.x)
