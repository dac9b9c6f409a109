"""One attack against everything that is still standing.

A success counts once the model, asked again about exactly the image that is stored,
errs again; otherwise the example goes on with its next chain.

    one = OneAttack(2, "apgd-t", attack, threat, ledger, predict)
    one.run(runner, progress=True, num_classes=10)
"""

from __future__ import annotations

import time
from collections import Counter, deque

import numpy as np
from tqdm import tqdm

from robustvit.attacks.slots import SlotAttack
from robustvit.evaluation.ledger import Ledger
from robustvit.evaluation.predictor import Predictor
from robustvit.evaluation.slots import Finished, SlotRunner
from robustvit.threat import ThreatModel

# Distances are recomputed in float32 from values of size up to 1.
DISTANCE_SLACK = 1e-6


class OneAttack:
    """Feeds the slots, and writes down what comes out of them."""

    def __init__(
        self,
        number: int,
        name: str,
        attack: SlotAttack,
        threat: ThreatModel,
        ledger: Ledger,
        predict: Predictor,
    ):
        self.number, self.name, self.attack = number, name, attack
        self.threat, self.ledger, self.predict = threat, ledger, predict
        if ledger.attack != number:
            ledger.attack, ledger.chain[:] = number, 0
        self.standing = np.flatnonzero(self._takes())
        # By chain, so that the last round of the slots is short.
        left = self.standing[ledger.chain[self.standing] < attack.num_chains]
        self.work = deque((int(i), int(ledger.chain[i])) for i in left)
        self._waiting: list[Finished] = []

    def run(self, runner: SlotRunner, *, progress: bool, num_classes: int) -> None:
        """To the end; saves what it learns as it goes."""
        start, ledger = time.perf_counter(), self.ledger
        failed = Counter(ledger.notes.setdefault("failed", {}).get(self.name, {}))
        ledger.notes["failed"][self.name] = failed
        successes = ledger.notes.setdefault("successes", {})
        self._successes = Counter(successes.get(self.name, {}))
        successes[self.name] = self._successes
        self._bar = tqdm(
            total=len(self.standing), desc=self.name, unit="img",
            disable=not progress, leave=False,
        )  # fmt: skip
        with self._bar:
            self._bar.update(len(self.standing) - len(self.work))
            while self.work:
                for end in runner.run(self.work, self._row):
                    if end.x_adv is None:
                        failed.update(["chains", *end.symptoms])
                        self._go_on(end)
                    else:
                        self._waiting.append(end)
                    if self._should_store():
                        self._store()
                    ledger.save_if_due()
                self._store()
        self._account(runner, time.perf_counter() - start, num_classes)
        ledger.attack = self.number + 1
        ledger.chain[:] = 0
        ledger.save()

    @property
    def group_size(self) -> int:
        """Images that are looked at again together."""
        return self.predict.batch_size

    def _should_store(self):
        return len(self._waiting) == self.group_size

    def _takes(self):
        """Which examples are attacked, bool (n,)."""
        return self.ledger.broken_by == -1

    def _eps(self, example):
        return float(self.threat.eps)

    def _row(self, example, chain):
        """Image, label, target, eps and place of one chain of one example."""
        ledger = self.ledger
        target = ledger.ranks[example, self.attack.rank(chain)]
        image, label = ledger.images[example], ledger.labels[example]
        return image, label, target, self._eps(example), ledger.ids[example]

    def _go_on(self, end):
        """To the example's next chain, or to the end of this attack."""
        self.ledger.chain[end.example] = end.chain + 1
        if end.chain + 1 < self.attack.num_chains:
            self.work.append((end.example, end.chain + 1))
        else:
            self._bar.update()

    def _store(self):
        """Ask again about the images that are waiting, and keep what holds."""
        if not self._waiting:
            return
        ledger = self.ledger
        rows = np.array([end.example for end in self._waiting])
        x_adv = np.stack([np.asarray(end.x_adv) for end in self._waiting])
        self._check_inside(x_adv, ledger.images[rows])
        predictions = self._predict(x_adv, rows).argmax(-1)
        wrong = predictions != ledger.labels[rows]
        for end in (self._waiting[i] for i in np.flatnonzero(~wrong)):
            self._go_on(end)
        self._waiting = [self._waiting[i] for i in np.flatnonzero(wrong)]
        if wrong.any():
            self._keep(rows[wrong], x_adv[wrong], predictions[wrong])
        self._waiting = []

    def _predict(self, images, rows):
        return self.predict(images, self.ledger.ids[rows], batch_size=self.group_size)

    def _keep(self, rows, x_adv, predictions):
        """Write down examples that are broken."""
        ledger = self.ledger
        ledger.x_adv[rows] = x_adv
        ledger.adversarial_predictions[rows] = predictions
        ledger.broken_by[rows] = self.number
        distance = self.threat.distance(x_adv, ledger.images[rows])
        ledger.radius[rows] = np.minimum(distance, self.threat.eps)
        for end in self._waiting:
            self._successes.update(["all", *(["late"] if end.late else [])])
        self._bar.update(len(rows))

    def _check_inside(self, x_adv, x):
        distance = float(np.max(self.threat.distance(x_adv, x)))
        eps = float(self.threat.eps)
        if distance > eps * (1 + DISTANCE_SLACK) + DISTANCE_SLACK or not (
            x_adv.min() >= 0 and x_adv.max() <= 1
        ):
            raise ValueError(
                f"{self.attack} left the threat model: distance {distance:g} for "
                f"eps={eps:g}, values in [{x_adv.min():g}, {x_adv.max():g}]"
            )

    def _account(self, runner, seconds, num_classes):
        """What it cost, on top of what was spent before a process died."""
        spent = Counter(self.ledger.notes.setdefault("effort", {}).get(self.name, {}))
        forwards, backwards = self.attack.passes(num_classes)
        spent.update(
            seconds=round(seconds, 2),
            slot_steps=runner.taken,
            busy_steps=runner.busy,
            forwards=runner.busy * forwards,
            backwards=runner.busy * backwards,
        )
        self.ledger.notes["effort"][self.name] = {**spent, "slots": runner.size}
