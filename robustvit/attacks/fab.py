"""FAB: walk along the decision boundary towards the nearest misclassified point.

    attack = FAB().resolve("linf", num_classes=10)          # FAB-T: nine targets
    state = attack.start(x, y, target, chain, threat, keys)
    state = run(attack, forward, state, threat, steps=attack.steps)
    state.distance                                          # of the nearest one found

Each step linearises the decision boundary at the present point, moves both it and the
original onto the plane, mixes the two, and if that is misclassified, moves back towards
the original. An example is done once a misclassified point lies within eps; with eps=0
the attack runs to its end and looks for the smallest perturbation.

Reference: Croce & Hein 2020, arXiv:1907.02044, Alg. 1.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from robustvit.attacks.fab_projections import onto_plane, size_of
from robustvit.attacks.slots import KeyedForward, choose, fold, per_example
from robustvit.threat import ThreatModel
from robustvit.types import Images, Keys, Labels, Logits

ALPHA_MAX = 0.1  # how far the original may pull
OVERSHOOT = 1.05
BACKWARD = 0.9
TINY = 1e-12
LEAST = 1e-8
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


@dataclass(frozen=True)
class FAB:
    """Fast adaptive boundary attack.

    Args:
      targets: how many of the likeliest wrong classes to aim at, one a chain; 0 takes
        the nearest boundary of all at every step, which costs a gradient per class.
      restarts: chains of the untargeted attack; all but the first start at random.
      steps: linearisations of one chain.

    Raises:
      ValueError: for counts below 1, and restarts of the targeted attack, which would
        all be the same.
    """

    targets: int = 9
    restarts: int = 1
    steps: int = 100

    def __post_init__(self):
        if self.targets < 0 or self.restarts < 1 or self.steps < 1:
            raise ValueError(f"{self}: wanted targets >= 0, restarts and steps >= 1")
        if self.targets and self.restarts > 1:
            raise ValueError(
                f"restarts={self.restarts} of targeted FAB would be the same run"
            )

    @property
    def stride(self) -> int:
        """Steps between two looks of the host."""
        return 5

    @property
    def num_chains(self) -> int:
        """Targets, or restarts of the untargeted attack."""
        return self.targets or self.restarts

    def resolve(self, norm: str, num_classes: int) -> FAB:
        """With as many targets as there are wrong classes."""
        return dataclasses.replace(self, targets=min(self.targets, num_classes - 1))

    def rank(self, chain: int) -> int:
        """Chain 0 aims at the likeliest wrong class."""
        return 1 + chain if self.targets else 0

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes of one step, per example."""
        return 2, 1 if self.targets else num_classes

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
        """At x, or for later restarts at random within eps / 2 of it."""
        x, b = jnp.asarray(x), len(x)
        start = x
        if not self.targets and self.restarts > 1:
            draw = _NOISE[threat.norm]
            noise = jax.vmap(lambda key: draw(key, x.shape[1:]))(keys)
            unit = noise / per_example(size_of(noise, threat.norm))
            moved = jnp.clip(x + 0.5 * threat.radius * unit, 0.0, 1.0)
            start = choose(jnp.asarray(chain) > 0, moved, x)
        no = jnp.zeros(b, bool)
        return State(
            x=x,
            y=jnp.asarray(y),
            target=jnp.asarray(target),
            keys=keys,
            x_adv=x,
            x_now=start,
            distance=jnp.full(b, jnp.inf),
            it=jnp.zeros(b, jnp.int32),
            done=no,
            broken=no,
        )

    def step(self, forward: KeyedForward, state: Any, threat: ThreatModel) -> Any:
        """Linearise, project, mix; then look whether the label changed."""
        k_plane, k_check = (fold(fold(state.keys, state.it), i) for i in (0, 1))
        x_now, norm = state.x_now, threat.norm
        if self.targets:
            w, gap = _plane_towards(state, lambda x: forward(x, k_plane))
        else:
            w, gap = _nearest_plane(state, lambda x: forward(x, k_plane), norm)
        gap_x = gap + jnp.sum(w * (state.x - x_now), (1, 2, 3))
        here = onto_plane(x_now, w, gap, norm)
        there = onto_plane(state.x, w, gap_x, norm)
        a, b = (jnp.maximum(size_of(move, norm), LEAST) for move in (here, there))
        alpha = per_example(jnp.clip(a / (a + b), 0.0, ALPHA_MAX))
        mixed = (x_now + OVERSHOOT * here) * (1 - alpha)
        x_new = jnp.clip(mixed + (state.x + OVERSHOOT * there) * alpha, 0.0, 1.0)

        wrong = forward(x_new, k_check).argmax(-1) != state.y
        distance = size_of(x_new - state.x, norm)
        nearer = wrong & (distance < state.distance)
        best = jnp.where(nearer, distance, state.distance)
        broken = best <= threat.eps
        back = state.x + BACKWARD * (x_new - state.x)
        return state.replace(
            x_now=choose(wrong, back, x_new),
            x_adv=choose(nearer, x_new, state.x_adv),
            distance=best,
            it=state.it + 1,
            done=broken | (state.it + 1 == self.steps),
            broken=broken,
        )


@struct.dataclass
class State:
    """Of one chain per slot; images (b, h, w, 3), the rest (b,)."""

    x: Any
    y: Any
    target: Any
    keys: Any
    x_adv: Any  # nearest misclassified point so far; x while there is none
    x_now: Any
    distance: Any  # of x_adv, infinite while there is none
    it: Any
    done: Any
    broken: Any


def _plane_towards(state, forward):
    """Where the linearised z_target - z_y is `gap` away from 0, and its gradient."""
    logits, pull_back = jax.vjp(forward, state.x_now)
    difference = _one_hot(state.target, logits) - _one_hot(state.y, logits)
    (w,) = pull_back(difference)
    return w, jnp.sum(difference * logits, -1)


def _nearest_plane(state, forward, norm):
    """The same for the class whose plane is nearest, one gradient at a time."""
    logits, pull_back = jax.vjp(forward, state.x_now)

    def consider(k, nearest):
        cls = jnp.full_like(state.y, k)
        difference = _one_hot(cls, logits) - _one_hot(state.y, logits)
        (w,) = pull_back(difference)
        gap = jnp.sum(difference * logits, -1)
        far = jnp.abs(gap) / (size_of(w, DUAL[norm]) + TINY)
        far = jnp.where(cls == state.y, jnp.inf, far)
        closer = far < nearest[0]
        candidate = (far, w, gap)
        return tuple(
            choose(closer, new, old)
            for new, old in zip(candidate, nearest, strict=True)
        )

    nothing = jnp.full(len(logits), jnp.inf), 0 * state.x_now, 0 * logits[:, 0]
    _, w, gap = lax.fori_loop(0, logits.shape[-1], consider, nothing)
    return w, gap


_NOISE = {
    "linf": lambda key, shape: jax.random.uniform(key, shape, minval=-1.0),
    "l2": jax.random.normal,
    "l1": jax.random.normal,
}


def _one_hot(labels: Labels, logits: Logits) -> Logits:
    return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
