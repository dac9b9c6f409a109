"""Shortest moves onto a hyperplane inside the box [0, 1], without sorting.

    move = onto_plane(x, w, gap, "l2")   # min |move|, <w, x + move> = <w, x> - gap

Each is exact up to float32: where no move inside the box reaches the plane, the box is
filled as far as it goes. In linf and l2 what a move gains, as a function of its size,
is concave and piecewise linear, so Newton's method climbs to the root from below in a
few passes; in l1 the pixels are filled in order of |w|, and the last one is found by
halving the range of bit patterns.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from robustvit.types import Images, PerExample

NEGLIGIBLE = 1e-8  # of |w|, in l2: the reference leaves such pixels alone
TINY = 1e-30
MAX_NEWTON = 50  # a guard: a handful of steps is usual


def onto_plane(x: Images, w: Images, gap: PerExample, norm: str) -> Images:
    """The move of least `norm` that changes <w, .> by -gap and stays in [0, 1].

    Reference: Croce & Hein 2020, arXiv:1907.02044, sec. 3.2.
    """
    w = w * jnp.where(gap < 0, -1.0, 1.0)[:, None, None, None]
    gap = jnp.abs(gap)[:, None, None, None]
    size = jnp.abs(w)
    room = jnp.where(w > 0, x, 1.0 - x) * (size > 0)
    if norm == "l1":
        length = _fill(size, room, gap)
    elif norm == "l2":
        size = jnp.where(size > NEGLIGIBLE, size, 0.0)
        length = _stretch(size, size, room, gap)
    else:
        length = _stretch(size, jnp.ones_like(size), room, gap)
    return -jnp.sign(w) * length


def _sum(values):
    return jnp.sum(values, (1, 2, 3), keepdims=True)


def _stretch(size, rate, room, gap):
    """Lengths min(lam * rate, room) whose gain sum(size * length) equals the gap."""
    weight = size * rate
    full = size * room

    def improve(carry):
        number, lam, _ = carry
        free = lam * rate < room
        missing = gap - _sum(jnp.where(free, 0.0, full))
        better = missing / jnp.maximum(_sum(jnp.where(free, weight, 0.0)), TINY)
        # With no pixel free, nothing more can be gained.
        better = jnp.where(_sum(free * weight) > 0, better, lam)
        return number + 1, jnp.maximum(lam, better), jnp.any(better > lam)

    lam = jnp.zeros_like(gap)
    going = (jnp.int32(0), lam, jnp.bool_(True))
    _, lam, _ = lax.while_loop(lambda c: c[2] & (c[0] < MAX_NEWTON), improve, going)
    # A gap out of reach leaves some pixels free only by rounding: fill the box.
    lam = jnp.where(_sum(full) <= gap, jnp.inf, lam)
    return jnp.where(rate > 0, jnp.minimum(lam * rate, room), 0.0)


def _fill(size, room, gap):
    """Full room for the largest sizes until the gap is closed, then a fraction."""
    bits = lax.bitcast_convert_type(size, jnp.int32)
    gain = size * room

    def halve(_, bounds):
        low, high = bounds  # sizes above `high` do not close the gap, above `low` do
        middle = low + (high - low) // 2
        closes = _sum(jnp.where(bits > middle, gain, 0.0)) >= gap
        return jnp.where(closes, middle, low), jnp.where(closes, high, middle)

    top = jnp.max(bits, (1, 2, 3), keepdims=True)
    _, edge_bits = lax.fori_loop(0, 31, halve, (jnp.full_like(top, -1), top))
    above = bits > edge_bits
    edge = bits == edge_bits
    missing = gap - _sum(jnp.where(above, gain, 0.0))
    share = jnp.clip(
        missing / jnp.maximum(_sum(jnp.where(edge, gain, 0.0)), TINY), 0, 1
    )
    return jnp.where(above, room, jnp.where(edge, share * room, 0.0))


def size_of(delta: Any, norm: str) -> Any:
    """Norms of (b, h, w, c), as (b,)."""
    flat = jnp.abs(delta).reshape(len(delta), -1)
    if norm == "linf":
        return flat.max(1)
    return flat.sum(1) if norm == "l1" else jnp.sqrt(jnp.sum(flat**2, 1))
