"""Square's proposals in l2 and l1: perturbation moved from one window to another.

A bump is a square of two halves with opposite signs, each falling off from its centre.
A proposal takes the perturbation out of one window and puts its length, and what is
left of the budget, into another one, where it adds a bump to what was there.

Used through `Square` (square.py).

Reference: Andriushchenko et al. 2020, arXiv:1912.00049, Alg. 3; for l1 Croce & Hein
2021, arXiv:2103.01208.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustvit.attacks.slots import choose
from robustvit.threat import ThreatModel
from robustvit.types import Images, Keys

TINY = 1e-12
GRID = 5  # bumps along a side, at the start
INSIDE = 1 - 1e-6  # l1 proposals keep this share of eps, against rounding


class Placing(NamedTuple):
    """How windows are drawn: with these keys (b,); `last` 0 spares the last row."""

    keys: Keys
    last: int


def propose(
    state: Any, sizes: np.ndarray, threat: ThreatModel, keys: Keys, place: Placing
) -> Images:
    """The start at query 0, later a move between two windows."""
    side = jnp.asarray(sizes)[state.it]
    shape = state.x.shape[1:]
    start = jax.vmap(lambda key: _grid(key, shape, threat.norm))(keys)
    kinds = np.unique(sizes)
    table = jnp.asarray(_table(kinds, shape[:2], threat.norm))
    kind = jnp.searchsorted(jnp.asarray(kinds), side)

    def move(key, k_window, delta, side, kind, eps):
        own = ThreatModel(threat.norm, eps)
        where = Placing(k_window, place.last)
        return _move(key, where, delta, side, table[kind], own)

    eps = jnp.broadcast_to(threat.eps, side.shape)
    delta = state.x_adv - state.x
    moved = jax.vmap(move)(keys, place.keys, delta, side, kind, eps)
    delta = choose(state.it == 0, start, moved)
    if threat.norm == "l1":
        inside = ThreatModel("l1", INSIDE * eps)
        return inside.project(state.x + delta, state.x)
    size = jnp.sqrt(jnp.sum(delta**2, (1, 2, 3), keepdims=True))
    return jnp.clip(state.x + threat.radius * delta / (size + TINY), 0.0, 1.0)


def window(low: Any, side: Any, height: int, width: int) -> tuple[Any, Any]:
    """Rows (h,) and columns (w,) of a square of that side that begins at `low` (2,)."""
    rows, columns = (
        (jnp.arange(n) >= first) & (jnp.arange(n) < first + side)
        for n, first in zip((height, width), low, strict=True)
    )
    return rows, columns


def corner(key: Any, side: Any, height: int, width: int, last: int) -> tuple[Any, Any]:
    """Where a square of that side begins, drawn uniformly.

    With `last` 1 the last row and column are reached, with 0 only by a square that
    fills the image, as in the authors' code.
    """
    u = jax.random.uniform(key, (2,))
    room = jnp.maximum(jnp.array([height, width]) - side + last, 1)
    low = jnp.minimum((u * room).astype(jnp.int32), room - 1)
    return low[0], low[1]


def _move(key, place, delta, side, bump, threat):
    """New perturbation (h, w, c) of one example."""
    height, width, channels = delta.shape
    _, _, k_signs, k_turn = jax.random.split(key, 4)
    k_to, k_from, _, _ = jax.random.split(place.keys, 4)
    top, left = corner(k_to, side, height, width, place.last)
    low = corner(k_from, side, height, width, place.last)
    source = _mask(window(low, side, height, width))
    rows, columns = jnp.arange(height) - top, jnp.arange(width) - left
    goal = _mask(((rows >= 0) & (rows < side), (columns >= 0) & (columns < side)))
    n = len(bump)
    bump = jnp.where(jax.random.bernoulli(k_turn), bump, bump.T)
    placed = bump[jnp.clip(rows, 0, n - 1)[:, None], jnp.clip(columns, 0, n - 1)]
    signs = jax.random.rademacher(k_signs, (channels,)).astype(jnp.float32)

    def length(values):  # of each channel
        if threat.norm == "l1":
            return jnp.sum(jnp.abs(values), (0, 1))
        return jnp.sqrt(jnp.sum(values**2, (0, 1)))

    old = delta * goal
    new = placed[:, :, None] * goal * signs + old / (TINY + length(old))
    new = new / (TINY + length(new))
    held = length(delta * (source | goal))
    if threat.norm == "l1":
        left_over = jnp.maximum(threat.eps - jnp.sum(jnp.abs(delta)), 0.0)
        gain = (left_over / channels + held) * channels
    else:
        left_over = jnp.maximum(threat.eps**2 - jnp.sum(delta**2), 0.0)
        gain = jnp.sqrt(left_over / channels + held**2)
    return jnp.where(goal, new * gain, jnp.where(source, 0.0, delta))


def _mask(rows_and_columns):
    rows, columns = rows_and_columns
    return rows[:, None, None] & columns[None, :, None]


def _grid(key, shape, norm):
    """Bumps side by side, each turned and signed at random."""
    height, width, channels = shape
    side = max(min(height, width) // GRID, 1)
    down, across = height // side, width // side
    k_signs, k_turns = jax.random.split(key)
    signs = jax.random.rademacher(k_signs, (down, 1, across, 1, channels))
    turned = jax.random.bernoulli(k_turns, shape=(down, 1, across, 1, 1))
    bump = jnp.asarray(bump_of(side, norm))
    cell = jnp.where(turned, bump.T[:, None, :, None], bump[:, None, :, None])
    cells = (cell * signs).reshape(down * side, across * side, channels)
    margin = [(n - k * side) // 2 for n, k in ((height, down), (width, across))]
    pads = [
        (low, n - k * side - low)
        for low, n, k in zip(margin, (height, width), (down, across), strict=True)
    ]
    return jnp.pad(cells, [*pads, (0, 0)])


def _table(kinds, shape, norm):
    """Bumps of all sides in use, each in the corner of an equal square."""
    n = int(max(kinds))
    table = np.zeros((len(kinds), n, n), np.float32)
    for row, side in zip(table, kinds, strict=True):
        row[:side, :side] = bump_of(int(side), norm)
    return table


def bump_of(side: int, norm: str) -> np.ndarray:
    """A bump (side, side) of unit l2 or l1 length: upper half up, lower half down."""
    upper = side // 2
    halves = (_slope(upper, side, norm), -_slope(side - upper, side, norm))
    return _unit(np.concatenate(halves), norm).astype(np.float32)


def _slope(height, width, norm):
    """Centred rectangles, each weighted by 1 / (its number)^2, or ^4 for l1."""
    total = np.zeros((height, width))
    row, column = height // 2, width // 2
    for number in range(max(row, column) + 1):
        rows = slice(max(row - number, 0), row + number + 1)
        columns = slice(max(column - number, 0), column + number + 1)
        total[rows, columns] += (number + 1.0) ** (-4 if norm == "l1" else -2)
    return _unit(total, norm)


def _unit(values, norm):
    size = np.abs(values).sum() if norm == "l1" else np.sqrt((values**2).sum())
    return values / max(size, TINY)
