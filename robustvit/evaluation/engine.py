"""Robust accuracy of any JAX function: attacks over a dataset, worst case per example.

    report = evaluate(forward, images, labels, ThreatModel("linf", 8 / 255),
                      autoattack("standard"))

An attack sees only what all attacks before it failed to break, always starts from the
clean image, and draws its randomness from the seed and the example's place in the data:
results do not depend on the batch size, the number of devices or, with a `state_dir`,
on how often the process is killed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from robustvit.attacks.slots import SlotAttack
from robustvit.evaluation import checks, gradients
from robustvit.evaluation.descent import Descent, descending
from robustvit.evaluation.fingerprints import fingerprints
from robustvit.evaluation.forwards import (
    Randomized,
    calls_python,
    check_gradients,
    keyed,
)
from robustvit.evaluation.inputs import Chunk, check_labels, gather, places
from robustvit.evaluation.ledger import Ledger
from robustvit.evaluation.one_attack import OneAttack
from robustvit.evaluation.predictor import Predictor
from robustvit.evaluation.report import Report
from robustvit.evaluation.slots import SlotRunner, even_size
from robustvit.parallel import data_mesh, replicated
from robustvit.threat import ThreatModel
from robustvit.types import Forward

SCHEMA = 2  # of a state folder
MAX_RANKS = 16  # likeliest classes that are remembered, for targeted attacks
LOOKED_AT = 64  # images that the checks of the forward use
REPEATS = 5  # calls that must agree


def evaluate(
    forward: Forward | Randomized,
    images: np.ndarray | Iterable[Chunk],
    labels: np.ndarray | None,
    threat: ThreatModel,
    attacks: Mapping[str, SlotAttack],
    *,
    seed: int = 0,
    batch_size: int = 128,
    ids: np.ndarray | None = None,
    class_names: tuple[str, ...] = (),
    progress: bool = True,
    state_dir: str | Path | None = None,
    curve: int = 0,
) -> Report:
    """Clean accuracy, and what is left of it after each of `attacks` in turn.

    Args:
      forward: images (b, h, w, 3) in [0, 1] to logits (b, k); deterministic, each
        example by itself. Anything that jax can differentiate.
      images: float32 (n, h, w, 3) in [0, 1]; or, with `labels=None`, an iterable of
        pairs (images, labels), which are kept in a temporary file. They stay on the
        host, a batch is on the device.
      labels: int (n,).
      threat: which perturbations count.
      attacks: by name, in order. With none, only clean accuracy is measured.
      seed: of everything random.
      batch_size: examples at a time, rounded up to a multiple of the devices.
      ids: int (n,), the places of these images in the data that they were taken from,
        which decide what is drawn for them; by default 0 to n - 1. With the ids that
        examples have in a larger evaluation, their verdicts are the same here.
      class_names: for the picture.
      progress: show a bar.
      state_dir: folder to keep everything in as it becomes known; the same call goes on
        where a killed one stopped. Adversarial images are then a file, not memory.
      curve: at how many smaller eps, in equal steps, robust accuracy is wanted as well;
        the whole curve costs less than a second evaluation.

    Raises:
      ValueError: for images that are not float in [0, 1], labels outside the logits,
        logits that are not finite, an attack that left the threat model, gradient
        attacks on what jax cannot differentiate, or a `state_dir` that holds another
        evaluation.
    """
    start = time.perf_counter()
    data = gather(images, labels)
    with jax.default_matmul_precision("highest"):
        run = _Evaluation(
            forward, *data, ids, threat, attacks, seed, batch_size, state_dir, curve
        )
        run.clean(attacks)
        for number, (kind, name, attack) in enumerate(run.plan(), 1):
            run.attack(kind, number, name, attack, progress)
        run.audit()
    return run.report(time.perf_counter() - start, class_names)


class _Evaluation:
    """One call of `evaluate`: the question, the programs, the ledger they fill."""

    def __init__(
        self,
        forward,
        images,
        labels,
        ids,
        threat,
        attacks,
        seed,
        batch_size,
        state_dir,
        curve,
    ):
        if curve < 0:
            raise ValueError(f"curve={curve} must be the number of eps, or 0")
        self.curve, self.ids = curve, places(ids, len(images))
        self.threat = ThreatModel(threat.norm, float(threat.eps))
        self.seed, self.key = seed, jax.random.key(seed)
        self.random, forward = isinstance(forward, Randomized), keyed(forward)
        # A callback that one device waits in while another waits for it never ends.
        alone = calls_python(forward, images[:1])
        self.mesh = data_mesh(jax.local_devices()[:1] if alone else None)
        self.forward = jax.device_put(forward, replicated(self.mesh))
        self.predict = Predictor(self.forward, self.mesh, self.key, batch_size)
        self.num_classes = self.predict(images[:1], np.zeros(1, int)).shape[-1]
        check_labels(labels, self.num_classes)
        self.attacks = {
            name: attack.resolve(threat.norm, self.num_classes)
            for name, attack in attacks.items()
        }
        check_gradients(self.forward, images[:1], self.attacks, self.num_classes)
        self.fingerprints = fingerprints(self.forward, images, labels)
        self.question = self._question()
        if ids is not None:
            self.question["ids"] = self.ids.tolist()
        self.ledger = Ledger(self.question, images, labels, self.ids, state_dir)

    def _question(self):
        """What is asked; a state folder answers no other question."""
        return {
            "schema": SCHEMA,
            "jax": jax.__version__,
            "model": self.fingerprints["model"],
            "data": self.fingerprints["data"],
            "threat": {"norm": self.threat.norm, "eps": float(self.threat.eps)},
            "seed": self.seed,
            "curve": self.curve,
            "attacks": {name: asdict(a) for name, a in self.attacks.items()},
        }

    def clean(self, asked):
        """Predictions without an attack, and a look at how the model behaves."""
        ledger = self.ledger
        if ledger.attack > 0:
            return
        logits = self.predict(ledger.images, self.ids)
        ledger.ranks = _ranks(logits)
        ledger.clean_predictions = ledger.ranks[:, 0].copy()
        ledger.adversarial_predictions = ledger.ranks[:, 0].copy()
        wrong = ledger.ranks[:, 0] != ledger.labels
        ledger.broken_by[wrong], ledger.radius[wrong] = 0, 0.0
        found = self._doubts(asked, logits)
        ledger.notes["warnings"] = [asdict(warning) for warning in found]
        ledger.attack = 1
        ledger.save()

    def _doubts(self, asked, logits):
        """What the clean logits, and a few calls more, say against the evaluation."""
        ledger, threat = self.ledger, self.threat
        found = [
            *checks.of_logits(logits),
            *checks.of_precision(logits),
            *checks.of_scale(logits),
            *checks.of_accuracy(np.asarray(ledger.broken_by == -1), self.num_classes),
            *checks.of_eps(threat.norm, threat.eps, ledger.images[0].size),
            *checks.of_classes(asked, self.attacks, threat.norm, self.num_classes),
            *checks.of_budget(self.attacks, self.random),
        ]
        if self.random:
            return found
        few, ids = ledger.images[:LOOKED_AT], self.ids[:LOOKED_AT]
        again = [self.predict(few, ids) for _ in range(REPEATS)]
        other = self.predict(few, ids, batch_size=self.predict.other_batch_size)
        found += checks.of_repetition(again)
        found += checks.of_batches(again[0], other)
        if any(a.passes(self.num_classes)[1] for a in self.attacks.values()):
            labels = ledger.labels[:LOOKED_AT]
            slopes = gradients.measure(self.predict, few, ids, labels, threat)
            found += gradients.judge(slopes)
        return found

    def plan(self):
        """What is run, in order: how, its name, the attack."""
        plan: list[Any] = [(OneAttack, *item) for item in self.attacks.items()]
        if self.curve:
            descent = partial(Descent, points=self.curve)
            plan += [
                (descent, *item) for item in descending(self.attacks, self.threat.norm)
            ]
        return plan

    def attack(self, kind, number, name, attack, progress):
        """Everything that is left, against one attack, unless that was done before."""
        if number < self.ledger.attack:
            return
        one = kind(number, name, attack, self.threat, self.ledger, self.predict)
        size = even_size(
            self.predict.batch_size, len(one.work), attack.num_chains, self.mesh.size
        )
        key = jax.random.fold_in(self.key, number)
        runner = SlotRunner(
            attack, self.forward, self.threat.norm, key, self.mesh, size
        )
        one.run(runner, progress=progress, num_classes=self.num_classes)

    def audit(self):
        """Ask once more about every stored image, in batches of another size."""
        ledger, size = self.ledger, self.predict.other_batch_size
        self.audited = ledger.adversarial_predictions
        if self.attacks:
            logits = self.predict(ledger.x_adv, self.ids, batch_size=size)
            self.audited = logits.argmax(-1)
        right, robust = self.audited == ledger.labels, ledger.broken_by == -1
        self.unstable = np.flatnonzero(right != robust)

    def report(self, seconds, class_names):
        """What was found, with every warning."""
        ledger = self.ledger
        failed = ledger.notes.get("failed", {})
        failed = {name: failed[name] for name in self.attacks if name in failed}
        warnings = [checks.Warning(**w) for w in ledger.notes["warnings"]]
        warnings += checks.of_climbs(failed)
        successes = ledger.notes.get("successes", {})
        warnings += checks.of_reach(self.attacks, self.threat.eps, successes)
        warnings += checks.of_square(self.attacks, ledger.broken_by)
        if not self.random:  # whose labels change by themselves
            size = self.predict.other_batch_size
            warnings += checks.of_audit(self.unstable, size)
        return Report(
            threat=self.threat,
            attacks=self.attacks,
            seed=self.seed,
            images=ledger.images,
            labels=ledger.labels,
            x_adv=ledger.x_adv,
            clean_predictions=ledger.clean_predictions,
            adversarial_predictions=ledger.adversarial_predictions,
            audited_predictions=self.audited,
            broken_by=ledger.broken_by,
            radius=ledger.radius,
            curve_points=self.curve,
            seconds=seconds,
            class_names=tuple(class_names),
            warnings=tuple(warnings),
            fingerprints=self.fingerprints,
            effort=ledger.notes.get("effort", {}),
        )


def _ranks(logits):
    """Classes by falling logit, the first few; of equals the lower number first."""
    order = np.argsort(-logits, axis=1, kind="stable")
    return order[:, :MAX_RANKS].astype(np.int32)
