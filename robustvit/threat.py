"""Threat models: which images an attacker may reach from a given one.

A ball of radius eps in a norm, cut with the box [0, 1]. `eps` is a pytree leaf, so a
schedule of eps does not recompile anything; `norm` is static. Everything is per
example: a result depends on no other example of the batch.

    threat = ThreatModel("linf", 8 / 255)
    x_adv = threat.project(x + noise, x)
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from robustvit.types import Images, Keys, PerExample

NORMS = ("linf", "l2", "l1")
BISECTION_STEPS = 32  # halvings of an interval of O(1): below float32 resolution
TINY = 1e-12


@struct.dataclass
class ThreatModel:
    """Images within `eps` of the original in `norm`, and within [0, 1].

    Args:
      norm: "linf", "l2" or "l1"; the last two over all pixels and channels.
      eps: radius on the [0, 1] scale, e.g. `8 / 255`; text like "8/255" is read too.
        An array (b,) gives each example of a batch its own.

    Raises:
      ValueError: for an unknown norm, a negative eps, or a linf eps above 1, which is
        what forgetting the `/ 255` looks like.
    """

    norm: str = struct.field(pytree_node=False)
    eps: Any

    def __post_init__(self):
        if self.norm not in NORMS:
            raise ValueError(f"norm={self.norm!r} is not one of {', '.join(NORMS)}")
        # Under jit eps is a tracer, and in jax's own bookkeeping any object at all.
        if isinstance(self.eps, str | int | float):
            object.__setattr__(self, "eps", parse_eps(self.eps, self.norm))

    @property
    def radius(self) -> Any:
        """`eps`, in a shape that goes with images."""
        return self.eps if jnp.ndim(self.eps) == 0 else self.eps[:, None, None, None]

    def project(self, x_adv: Images, x: Images) -> Images:
        """Bring x_adv back to within eps of x and into [0, 1]."""
        return _PROJECT[self.norm](x_adv, x, self.radius)

    def random_start(self, x: Images, keys: Keys) -> Images:
        """Uniform draw from the ball around x, then projected into [0, 1]."""
        noise = jax.vmap(lambda key: _NOISE[self.norm](key, x.shape[1:]))(keys)
        return self.project(x + self.radius * noise.astype(x.dtype), x)

    def ascent(self, x_adv: Images, gradient: Images, step_size: Any) -> Images:
        """The move of length `step_size` that raises a linear function most."""
        return _ASCENT[self.norm](x_adv, gradient, step_size)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """Size of the perturbation, in the norm, on the [0, 1] scale."""
        # No -1: a reshape cannot work that out for no images at all.
        delta = jnp.abs(x_adv - x).reshape(len(x), math.prod(x.shape[1:]))
        if self.norm == "linf":
            return delta.max(-1)
        return delta.sum(-1) if self.norm == "l1" else jnp.linalg.norm(delta, axis=-1)


def parse_eps(text: str | float | int, norm: str = "linf") -> float:
    """Read "8/255", "0.03" or a number; refuse what cannot be an eps on [0, 1]."""
    try:
        eps = _fraction(text) if isinstance(text, str) else float(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"eps={text!r} is not a number: write a fraction like '8/255' or 0.03"
        ) from None
    if not 0.0 <= eps < float("inf"):
        raise ValueError(f"eps={text} must be finite and at least 0")
    if norm == "linf" and eps > 1.0:
        raise ValueError(
            f"eps={text} is larger than the whole range of images in [0, 1]: "
            f"did you mean '{text}/255'?"
        )
    return eps


def _fraction(text):
    """Unlike `Fraction`, with decimals above the line: "0.5/255"."""
    above, slash, below = text.partition("/")
    return float(Fraction(above) / Fraction(below if slash else 1))


def format_eps(eps: float) -> str:
    """Write 0.03137... as "8/255", and what is no multiple of 1/255 as a decimal."""
    levels = eps * 255
    if abs(levels - round(levels)) < 1e-4:
        return f"{round(levels)}/255" if round(levels) else "0"
    return f"{eps:g}"


def _sum(values):
    return values.sum((1, 2, 3), keepdims=True)


def _project_linf(x_adv, x, eps):
    return jnp.clip(x_adv, jnp.maximum(x - eps, 0.0), jnp.minimum(x + eps, 1.0))


def _project_l2(x_adv, x, eps):
    delta = x_adv - x
    norm = jnp.sqrt(_sum(delta**2))
    # Clipping moves towards x, which is in the box, so it never leaves the ball.
    return jnp.clip(x + delta * jnp.minimum(1.0, eps / (norm + TINY)), 0.0, 1.0)


def _project_l1(x_adv, x, eps):
    """Euclidean projection on ball and box at once, by bisection on the multiplier.

    Soft-thresholding by lam and clipping to the room left in the box is the solution
    for the right lam; the l1 size falls as lam grows, so no sorting is needed.
    """
    delta = x_adv - x
    size = jnp.abs(delta)
    room = jnp.where(delta > 0, 1.0 - x, x)

    def shrunk(lam):
        return jnp.clip(size - lam, 0.0, room)

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        too_big = _sum(shrunk(middle)) > eps
        return jnp.where(too_big, middle, low), jnp.where(too_big, high, middle)

    top = size.max((1, 2, 3), keepdims=True)
    bounds = (jnp.zeros_like(top), top)
    _, lam = lax.fori_loop(0, BISECTION_STEPS, halve, bounds)
    lam = jnp.where(_sum(shrunk(0.0)) <= eps, 0.0, lam)
    return x + jnp.sign(delta) * shrunk(lam)


def _ascent_linf(x_adv, gradient, step_size):
    return x_adv + step_size * jnp.sign(gradient)


def _ascent_l2(x_adv, gradient, step_size):
    return x_adv + step_size * gradient / (jnp.sqrt(_sum(gradient**2)) + TINY)


def _ascent_l1(x_adv, gradient, step_size):
    """Spend the step on the largest gradients, each up to the wall of the box.

    A single coordinate can move by at most 1, so an l1 step longer than that must be
    spread; filling in order of |gradient| is optimal. The cut-off is bisected. What the
    projection then takes away evenly keeps PGD about one step from the optimum.
    """
    size = jnp.abs(gradient)
    room = jnp.where(gradient > 0, 1.0 - x_adv, x_adv) * (size > 0)

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        too_much = _sum(room * (size > middle)) > step_size
        return jnp.where(too_much, middle, low), jnp.where(too_much, high, middle)

    top = size.max((1, 2, 3), keepdims=True)
    bounds = (jnp.zeros_like(top), top)
    low, high = lax.fori_loop(0, BISECTION_STEPS, halve, bounds)
    full = room * (size > high)
    edge = room * ((size > low) & (size <= high))  # ties, or the last one to fill
    rest = jnp.clip((step_size - _sum(full)) / (_sum(edge) + TINY), 0.0, 1.0)
    return x_adv + jnp.sign(gradient) * (full + rest * edge)


def _noise_linf(key, shape):
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _noise_l2(key, shape):
    k_direction, k_radius = jax.random.split(key)
    direction = jax.random.normal(k_direction, shape)
    dimension = direction.size
    radius = jax.random.uniform(k_radius) ** (1.0 / dimension)
    return radius * direction / (jnp.linalg.norm(direction) + TINY)


def _noise_l1(key, shape):
    # d Laplace variables over their l1 norm plus one more exponential: uniform in the
    # ball (Barthe et al. 2005).
    k_direction, k_rest = jax.random.split(key)
    direction = jax.random.laplace(k_direction, shape)
    return direction / (jnp.abs(direction).sum() + jax.random.exponential(k_rest))


_PROJECT = {"linf": _project_linf, "l2": _project_l2, "l1": _project_l1}
_ASCENT = {"linf": _ascent_linf, "l2": _ascent_l2, "l1": _ascent_l1}
_NOISE = {"linf": _noise_linf, "l2": _noise_l2, "l1": _noise_l1}
