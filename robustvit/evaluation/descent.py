"""Robust accuracy at every eps below one, from what an evaluation has found already.

An example that withstood eps withstands less; one that was broken is attacked again
just below the smallest perturbation that is known to break it, until every attack has
failed there once. What failed at a larger eps is not tried at a smaller one.

    for name, attack in descending(attacks, threat.norm):
        Descent(number, name, attack, threat, ledger, predict, points=32).run(runner)
    ledger.radius                        # (n,); accuracy at e is the share above e
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robustvit.attacks import APGD, FAB
from robustvit.attacks.slots import SlotAttack
from robustvit.evaluation.one_attack import OneAttack

HALVINGS = 6  # of the way from a clean image to an adversarial one
SLACK = 1e-6  # of a radius, which is a rounded number


def descending(
    attacks: Mapping[str, SlotAttack], norm: str
) -> list[tuple[str, SlotAttack]]:
    """Those worth their cost at every eps, newly named.

    APGD, which is nearly all of AutoAttack's strength; in l1, where it spreads what is
    best spent on few pixels, FAB as well; other attacks where neither is asked for.
    """
    kinds = (APGD, FAB) if norm == "l1" else APGD
    chosen = {name: one for name, one in attacks.items() if isinstance(one, kinds)}
    return [(f"{k}, smaller eps", one) for k, one in (chosen or attacks).items()]


def grid(eps: float, points: int) -> np.ndarray:
    """The eps of a curve: `points` equal steps, from the first to `eps`."""
    return eps * np.arange(1, points + 1) / points


class Descent(OneAttack):
    """One attack on what is broken, at smaller and smaller eps."""

    def __init__(self, *arguments: Any, points: int):
        self.points = points
        super().__init__(*arguments)

    @property
    def group_size(self) -> int:
        """Few, because an example cannot go on before it was looked at again."""
        return self.predict.small_batch_size

    def _should_store(self):
        # With nothing else to do, an example that waits leaves a slot empty.
        return super()._should_store() or (self._waiting and not self.work)

    def _level(self, example):
        """Number of the largest eps of the grid below the known perturbation."""
        share = self.ledger.radius[example] / float(self.threat.eps)
        return np.ceil(share * self.points * (1 - SLACK)).astype(int) - 1

    def _takes(self):
        broken = self.ledger.broken_by > 0
        broken[broken] = self._level(broken) > 0
        return broken

    def _eps(self, example):
        return float(self.threat.eps) * self._level(example) / self.points

    def _keep(self, rows, x_adv, predictions):
        """Shrink what was found, and try the same again below it."""
        ledger = self.ledger
        x, labels = ledger.images[rows], ledger.labels[rows]
        low, high = np.zeros(len(rows), np.float32), np.ones(len(rows), np.float32)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            between = x + middle[:, None, None, None] * (x_adv - x)
            wrong = self._predict(between, rows).argmax(-1) != labels
            low, high = np.where(wrong, low, middle), np.where(wrong, middle, high)
        shrunk = np.where(
            high[:, None, None, None] < 1,
            x + high[:, None, None, None] * (x_adv - x),
            x_adv,
        )
        distance = self.threat.distance(shrunk, x)
        # What was found at an eps is within it, whatever rounding says.
        ledger.radius[rows] = np.minimum(distance, self._eps(rows))
        for end in self._waiting:
            if self._level(end.example) > 0:
                self.work.append((end.example, end.chain))
            else:
                self.ledger.chain[end.example] = self.attack.num_chains
                self._bar.update()
