"""APGD with a few steps, to train on: it gives the worst point that it has seen.

    attack = TrainingAPGD(steps=2, step_size=2 * 4 / 255)
    x_adv = attack(lambda z: cross_entropy(forward(z), labels), x, threat, keys)

The step starts at 2 eps and is halved where it did not help, so that two steps do what
takes a fixed step three or four. Unlike APGD for evaluation it goes on after a success,
takes any per-example loss, and needs no gradient at its last point.

References: Singh, Croce, Hein 2023, arXiv:2303.01870; Croce & Hein 2020,
arXiv:2003.01690, Alg. 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from robustvit.attacks import apgd
from robustvit.attacks.pgd import PGD, CarryingLossFn
from robustvit.attacks.slots import choose
from robustvit.threat import ThreatModel
from robustvit.types import Images, Keys, PyTree


@dataclass(frozen=True)
class TrainingAPGD(PGD):
    """PGD that chooses its own steps and keeps its best point, in linf and l2.

    Args:
      steps: gradient steps.
      step_size: absolute length of the first one, see `first_step_size`.
      random_start: begin at a uniform draw from the ball instead of at x.

    Raises:
      ValueError: if `steps` is below 1 or `step_size` is negative; in l1, when called.
    """

    random_start: bool = False

    @property
    def forwards(self) -> int:
        """Forward passes that it costs, a backward pass counted as one."""
        return 2 * self.steps + 1

    def ascend(
        self,
        loss_fn: CarryingLossFn,
        x: Images,
        threat: ThreatModel,
        keys: Keys,
        carry: PyTree,
    ) -> tuple[Images, PyTree]:
        """The climb, for a loss that threads a carry from step to step."""
        if threat.norm == "l1":
            raise ValueError("APGD for training is for linf and l2, got norm='l1'")

        def summed(x_adv, step, carry):
            loss, carry = loss_fn(x_adv, step, carry)
            return loss.sum(), (loss, carry)

        def climb(loop, step):
            state, carry = loop
            gradient, (loss, carry) = jax.grad(summed, has_aux=True)(
                state.x_adv, step, carry
            )
            state = apgd.record(state, loss, gradient)
            state, origin, gradient = apgd.review(self.steps, state, gradient)
            moved = apgd.move(state, origin, gradient, threat)
            return (
                state.replace(x_adv=moved, x_old=origin, it=state.it + 1),
                carry,
            ), None

        start = threat.random_start(x, keys) if self.random_start else x
        none = jnp.zeros(len(x), jnp.int32)  # the loss knows its labels
        state: Any = apgd.initial_state(x, none, none, start, threat, keys)
        state = state.replace(step_size=jnp.full(len(x), self.step_size))
        loop, _ = lax.scan(climb, (state, carry), jnp.arange(self.steps))
        state, carry = loop
        loss, carry = loss_fn(state.x_adv, jnp.asarray(self.steps), carry)
        return choose(loss > state.loss_best, state.x_adv, state.x_best), carry


def first_step_size(eps: float, steps: int) -> float:
    """APGD's: 2 eps, however many steps there are."""
    return 2 * eps
