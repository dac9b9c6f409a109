"""FGSM and PGD: projected steepest ascent from a random start, as one `lax.scan`.

The attack knows no model and no labels: it climbs whatever per-example loss it is
given. Targeted PGD is the same climb on `losses.targeted_cross_entropy`.

    attack = PGD(steps=10, step_size=2 / 255)
    x_adv = attack(lambda z: cross_entropy(forward(z), labels), x, threat, keys)

References: Madry et al. 2018, arXiv:1706.06083; FGSM with a random start: Wong et al.
2020, arXiv:2001.03994.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from robustvit.threat import ThreatModel
from robustvit.types import Images, Keys, LossFn, PerExample, PyTree

# loss(images, step, carry) -> (per-example loss, carry), for losses that draw fresh
# noise at every step or keep running statistics.
CarryingLossFn = Callable[[Images, Int[Array, ""], PyTree], tuple[PerExample, PyTree]]


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent with a fixed step.

    Args:
      steps: gradient steps; 1 is FGSM.
      step_size: absolute length of a step, on the [0, 1] scale. It does not follow
        an eps schedule. See `light_step_size` for the Light Recipe's rule.
      random_start: begin at a uniform draw from the ball instead of at x.

    Raises:
      ValueError: if `steps` is below 1 or `step_size` is negative.
    """

    steps: int
    step_size: float
    random_start: bool = True

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"PGD needs at least 1 step, got steps={self.steps}")
        if self.step_size < 0:
            raise ValueError(f"step_size={self.step_size} must not be negative")

    @property
    def forwards(self) -> int:
        """Forward passes that it costs, a backward pass counted as one."""
        return 2 * self.steps

    def __call__(
        self, loss_fn: LossFn, x: Images, threat: ThreatModel, keys: Keys
    ) -> Images:
        """Images inside `threat` around x, with `loss_fn` raised."""
        x_adv, _ = self.ascend(lambda z, _, c: (loss_fn(z), c), x, threat, keys, ())
        return x_adv

    def ascend(
        self,
        loss_fn: CarryingLossFn,
        x: Images,
        threat: ThreatModel,
        keys: Keys,
        carry: PyTree,
    ) -> tuple[Images, PyTree]:
        """The same climb for a loss that threads a carry from step to step."""

        def summed(x_adv, step, carry):
            loss, carry = loss_fn(x_adv, step, carry)
            # A sum, so that an example's gradient does not know the batch size.
            return loss.sum(), carry

        def climb(loop, step):
            x_adv, carry = loop
            gradient, carry = jax.grad(summed, has_aux=True)(x_adv, step, carry)
            moved = threat.ascent(x_adv, gradient, self.step_size)
            return (threat.project(moved, x), carry), None

        start = threat.random_start(x, keys) if self.random_start else x
        loop, _ = lax.scan(climb, (start, carry), jnp.arange(self.steps))
        return loop


def fgsm(step_size: float, *, random_start: bool = True) -> PGD:
    """One signed gradient step: PGD with `steps=1`."""
    return PGD(steps=1, step_size=step_size, random_start=random_start)


def light_step_size(eps: float, steps: int) -> float:
    """The Light Recipe's step, 1.5 eps / steps, from the final eps of a schedule.

    Reference: Debenedetti et al. 2023, arXiv:2209.07399.
    """
    return 1.5 * eps / max(steps, 1)
