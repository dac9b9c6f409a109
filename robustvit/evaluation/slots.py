"""Continuous batching: a fixed number of slots, kept full of unfinished examples.

An attack on thousands of examples is one compiled program over a batch of slots. An
example that is broken, or has been through all its steps, leaves its slot, and the next
one enters; nothing else of the batch notices. Whatever is random about an example
depends on the seed, the attack, the example and the try alone, so that neither the
number of slots nor the order of things changes a result.

    runner = SlotRunner(attack, forward, "linf", key, mesh, size=64)
    for finish in runner.run(work, row):                # work: (example, chain), ...
        ...                                  # may append more work
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from robustvit.attacks.slots import SlotAttack, advance, choose
from robustvit.parallel import put_batch, split
from robustvit.threat import ThreatModel
from robustvit.types import PyTree

LATE = 0.75  # of an attack's steps: after that a success is a late one

Work = deque[tuple[int, int]]  # (example, chain), in the order of entering


@dataclass(frozen=True)
class Finished:
    """One chain of one example has ended; `x_adv` is its result if it broke it."""

    example: int
    chain: int
    x_adv: np.ndarray | None
    symptoms: tuple[str, ...]
    late: bool = False  # in the last quarter of the steps that it could have had


def even_size(batch_size: int, examples: int, chains: int, devices: int) -> int:
    """Slots that are all busy to the end, if nothing breaks: at most `batch_size`.

    Chains of an example follow one another, so more slots than examples are no use.
    """
    if examples <= batch_size:
        size = examples
    else:
        rounds = -(-examples * chains // batch_size)
        size = -(-examples * chains // rounds)
    return -(-max(size, 1) // devices) * devices


class SlotRunner:
    """The slots of one attack, and the programs that fill and advance them."""

    def __init__(
        self,
        attack: SlotAttack,
        forward: PyTree,
        norm: str,
        key: jax.Array,
        mesh: Any,
        size: int,
    ):
        self.attack, self.size = attack, size
        self.busy = self.taken = 0  # slot steps with and without an example in them
        self._forward, self._norm, self._key, self._mesh = forward, norm, key, mesh
        self._example = np.full(size, -1, np.int32)
        self._chain = np.zeros(size, np.int32)
        self._state: Any = None
        self._threat: Any = None  # of each slot

    def run(
        self, work: Work, data: Callable[[int, int], tuple[Any, ...]]
    ) -> Iterator[Finished]:
        """Take work until there is none, and yield what finished.

        Args:
          work: consumed from the left; what is appended meanwhile is done as well.
          data: (example, chain) to image (h, w, 3), label, target, eps, and the
            example's place in the data, which is what its randomness depends on.
        """
        while work or (self._example >= 0).any():
            self._fill(work, data)
            for _ in range(self.attack.stride):
                # One step a program: inside a loop, XLA's CPU convolutions take five
                # times as long.
                self._state, seen = _step(
                    self.attack, self._mesh, self._forward, self._state, self._threat
                )
                if jax.default_backend() == "cpu":
                    # Virtual devices must not run ahead of one another.
                    jax.block_until_ready(seen)
            yield from self._leave(*jax.device_get(seen))

    def _fill(self, work, data):
        free = np.flatnonzero(self._example < 0)
        entering = np.zeros(self.size, bool)
        rows = []
        for slot in free:
            if not work:
                break
            self._example[slot], self._chain[slot] = example, chain = work.popleft()
            entering[slot] = True
            rows.append((slot, data(example, chain)))
        if not rows:
            return
        shape = rows[0][1][0].shape
        x = np.zeros((self.size, *shape), np.float32)
        y, target, ids = np.zeros((3, self.size), np.int32)
        eps = np.zeros(self.size, np.float32)
        for slot, values in rows:
            x[slot], y[slot], target[slot], eps[slot], ids[slot] = values
        arrays = (entering, x, y, target, eps, ids, self._chain.copy())
        self._state, self._threat = _enter(
            self.attack, self._mesh, self._norm, self._state, self._threat, self._key,
            *put_batch(arrays, self._mesh),
        )  # fmt: skip

    def _leave(self, done, broken, iterations, symptoms):
        self.taken += self.size * self.attack.stride
        held = self._example >= 0
        finished = np.flatnonzero(held & done)
        # Those that finished earlier have stood still since; count what was used.
        self.busy += int(iterations[finished].sum())
        late = 1 + LATE * getattr(self.attack, "steps", np.inf)
        images = np.asarray(self._state.x_adv if broken[finished].any() else ())
        for slot in finished:
            yield Finished(
                example=int(self._example[slot]),
                chain=int(self._chain[slot]),
                x_adv=images[slot].copy() if broken[slot] else None,
                symptoms=tuple(name for name, rows in symptoms.items() if rows[slot]),
                late=bool(iterations[slot] > late),
            )
        self._example[finished] = -1


@partial(jax.jit, static_argnames=("attack", "mesh", "norm"), donate_argnames="state")
def _enter(
    attack, mesh, norm, state, threat, key, entering, x, y, target, eps, ids, chain
):
    """Put new examples where `entering` says so."""
    keys = jax.vmap(lambda i, c: jax.random.fold_in(jax.random.fold_in(key, i), c))(
        ids, chain
    )
    if threat is not None:
        eps = jnp.where(entering, eps, threat.eps)
    threat = ThreatModel(norm, eps)
    fresh = attack.start(x, y, target, chain, threat, keys)
    if state is None:  # slots without an example count as done
        state = fresh.replace(done=~entering)
    else:
        state = jax.tree.map(lambda a, b: choose(entering, a, b), fresh, state)
    return lax.with_sharding_constraint((state, threat), split(mesh))


@partial(jax.jit, static_argnames=("attack", "mesh"), donate_argnames="state")
def _step(attack, mesh, forward, state, threat):
    """One step of every slot, and what the host wants to know of each."""
    state = advance(attack, forward, state, threat)
    state = lax.with_sharding_constraint(state, split(mesh))
    iterations = getattr(state, "it", jnp.ones_like(state.y))
    return state, (state.done, state.broken, iterations, attack.symptoms(state))
