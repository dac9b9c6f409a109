"""An attack on predictions, for evaluation: what climbs, on which loss, how often.

attack = LabelAttack(PGD(steps=20, step_size=2 / 255), loss="margin", restarts=2)
x_adv = attack(forward, images, labels, threat, keys)      # one restart
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from robustvit import losses
from robustvit.attacks.pgd import PGD
from robustvit.attacks.slots import KeyedForward, fold
from robustvit.threat import ThreatModel
from robustvit.types import Forward, Images, Keys, Labels

UNTARGETED = {
    "cross_entropy": losses.cross_entropy,
    "margin": losses.margin,
    "dlr": losses.dlr,
}
TARGETED = {"targeted_cross_entropy": losses.targeted_cross_entropy}


@dataclass(frozen=True)
class LabelAttack:
    """A climber, the loss it climbs, and how often it may start again.

    Args:
      attack: `PGD` or anything else that climbs a loss.
      loss: "cross_entropy", "margin", "dlr", or "targeted_cross_entropy" (towards a
        class drawn uniformly from the wrong ones, a new one at each restart).
      restarts: runs from new random starts; an example counts as broken if any of
        them breaks it.

    Raises:
      ValueError: for an unknown loss, fewer than one restart, or what cannot climb.
    """

    attack: PGD
    loss: str = "cross_entropy"
    restarts: int = 1

    def __post_init__(self):
        if not callable(self.attack):
            raise ValueError(f"attack={self.attack!r} is no attack, such as PGD(...)")
        if self.loss not in {**UNTARGETED, **TARGETED}:
            known = ", ".join({**UNTARGETED, **TARGETED})
            raise ValueError(f"loss={self.loss!r} is not one of {known}")
        if self.restarts < 1:
            raise ValueError(f"restarts={self.restarts} must be at least 1")

    def __call__(
        self,
        forward: Forward,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        keys: Keys,
    ) -> Images:
        """One run, from the start that `keys` (one per example) decide."""
        k_start, k_target = jax.vmap(jax.random.split, out_axes=1)(keys)

        def loss_fn(x):
            logits = forward(x)
            if self.loss in UNTARGETED:
                return UNTARGETED[self.loss](logits, labels)
            targets = wrong_classes(k_target, labels, logits.shape[-1])
            return TARGETED[self.loss](logits, targets)

        return self.attack(loss_fn, images, threat, k_start)

    # As a `SlotAttack` (see slots.py) it is one step long, which is the whole climb.

    @property
    def stride(self) -> int:
        """Steps between two looks of the host."""
        return 1

    @property
    def num_chains(self) -> int:
        """One per restart."""
        return self.restarts

    def resolve(self, norm: str, num_classes: int) -> LabelAttack:
        """With a loss that the classes allow."""
        too_few = self.loss == "dlr" and num_classes < 3
        return dataclasses.replace(self, loss="margin") if too_few else self

    def rank(self, chain: int) -> int:
        """Targets are drawn, not ranked."""
        return 0

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes, per example."""
        return self.attack.steps + 1, self.attack.steps

    def symptoms(self, state: Any) -> dict[str, Any]:
        """None are kept."""
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
        """Before the climb."""
        no = jnp.zeros(len(x), bool)
        x, y = jnp.asarray(x), jnp.asarray(y)
        return State(x=x, y=y, keys=keys, x_adv=x, done=no, broken=no)

    def step(self, forward: KeyedForward, state: Any, threat: ThreatModel) -> Any:
        """The climb, and a look at where it ended."""
        k_climb, k_model, k_look = (fold(state.keys, i) for i in range(3))
        x_adv = self(
            lambda images: forward(images, k_model), state.x, state.y, threat, k_climb
        )
        broken = forward(x_adv, k_look).argmax(-1) != state.y
        return state.replace(x_adv=x_adv, done=jnp.ones_like(broken), broken=broken)


@struct.dataclass
class State:
    """Of one restart per slot; images (b, h, w, 3), the rest (b,)."""

    x: Any
    y: Any
    keys: Any
    x_adv: Any
    done: Any
    broken: Any


def wrong_classes(keys: Keys, labels: Labels, num_classes: int) -> Labels:
    """For each example a class drawn uniformly from all but its own."""
    shift = jax.vmap(lambda key: jax.random.randint(key, (), 1, num_classes))(keys)
    return (labels + shift) % num_classes
