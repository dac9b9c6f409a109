"""The losses that APGD climbs, with their gradients: what linf, l2 and l1 share.

logits, loss, gradient = value_and_gradient("dlr", 1, forward, x, y, target, keys)
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from robustvit import losses
from robustvit.attacks.slots import KeyedForward, fold
from robustvit.types import Images, Keys, Labels

LOSSES = {
    "cross_entropy": lambda logits, y, target: losses.cross_entropy(logits, y),
    "dlr": lambda logits, y, target: losses.dlr(logits, y),
    "targeted_dlr": losses.targeted_dlr,
    "targeted_cross_entropy": lambda logits, y, target: losses.targeted_cross_entropy(
        logits, target
    ),
}
# loss: (classes that it needs, what stands in for it where there are fewer).
FEWEST_CLASSES = {
    "dlr": (3, "cross_entropy"),
    "targeted_dlr": (4, "targeted_cross_entropy"),
}


def value_and_gradient(
    loss: str,
    samples: int,
    forward: KeyedForward,
    x: Images,
    y: Labels,
    target: Labels,
    keys: Keys,
) -> tuple[Any, Any, Any]:
    """Logits (b, k), losses (b,) and gradients (b, h, w, 3).

    With `samples` above 1 the gradient is the mean over as many draws of a randomised
    forward (expectation over transformation, Athalye et al. 2018); logits and losses
    are the last draw's, as in the reference implementation of AutoAttack.
    """

    def summed(x, keys):
        logits = forward(x, keys)
        values = LOSSES[loss](logits, y, target)
        # A sum, so that an example's gradient does not know the batch size.
        return values.sum(), (logits, values)

    gradient_of = jax.grad(summed, has_aux=True)
    gradient, (logits, values) = gradient_of(x, fold(keys, 0))
    if samples == 1:
        return logits, values, gradient

    def draw(i, carry):
        new, (logits, values) = gradient_of(x, fold(keys, i))
        return carry[0] + new, logits, values

    total, logits, values = lax.fori_loop(1, samples, draw, (gradient, logits, values))
    return logits, values, total / samples


def norm2(delta: Any) -> Any:
    """Euclidean norms of (b, h, w, c), as (b, 1, 1, 1)."""
    return jnp.sqrt(jnp.sum(delta**2, (1, 2, 3), keepdims=True))


def is_zero(gradient: Any) -> Any:
    """Which examples have no gradient at all, (b,)."""
    return ~jnp.any(gradient != 0, (1, 2, 3))
