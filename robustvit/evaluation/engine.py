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
from pathlib import Path

import jax
import numpy as np

from robustvit.attacks.slots import SlotAttack
from robustvit.evaluation import checks, gradients
from robustvit.evaluation.fingerprints import fingerprint_of_data, fingerprint_of_model
from robustvit.evaluation.forwards import Randomized, keyed
from robustvit.evaluation.inputs import Chunk, check_labels, gather
from robustvit.evaluation.ledger import Ledger
from robustvit.evaluation.one_attack import OneAttack
from robustvit.evaluation.predictor import Predictor
from robustvit.evaluation.report import Report
from robustvit.evaluation.slots import SlotRunner, even_size
from robustvit.parallel import data_mesh, replicated
from robustvit.threat import ThreatModel
from robustvit.types import Forward

SCHEMA = 1  # of a state folder
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
    class_names: tuple[str, ...] = (),
    progress: bool = True,
    state_dir: str | Path | None = None,
) -> Report:
    """Clean accuracy, and what is left of it after each of `attacks` in turn.

    Args:
      forward: images (b, h, w, 3) in [0, 1] to logits (b, k); deterministic, each
        example by itself. Anything that jax can differentiate.
      images: float32 (n, h, w, 3) in [0, 1]; or, with `labels=None`, an iterable of
        pairs (images, labels). They stay on the host, a batch is on the device.
      labels: int (n,).
      threat: which perturbations count.
      attacks: by name, in order. With none, only clean accuracy is measured.
      seed: of everything random.
      batch_size: examples at a time, rounded up to a multiple of the devices.
      class_names: for the picture.
      progress: show a bar.
      state_dir: folder to keep everything in as it becomes known; the same call goes on
        where a killed one stopped. Adversarial images are then a file, not memory.

    Raises:
      ValueError: for images that are not float in [0, 1], labels outside the logits,
        logits that are not finite, an attack that left the threat model, or a
        `state_dir` that holds another evaluation.
    """
    start = time.perf_counter()
    data = gather(images, labels)
    with jax.default_matmul_precision("highest"):
        run = _Evaluation(forward, *data, threat, attacks, seed, batch_size, state_dir)
        run.clean(attacks)
        for number, name in enumerate(run.attacks, 1):
            if number >= run.ledger.attack:
                run.attack(number, name, progress)
        run.audit()
    return run.report(time.perf_counter() - start, class_names)


class _Evaluation:
    """One call of `evaluate`: the question, the programs, the ledger they fill."""

    def __init__(
        self, forward, images, labels, threat, attacks, seed, batch_size, state_dir
    ):
        self.threat = ThreatModel(threat.norm, float(threat.eps))
        self.seed, self.key, self.mesh = seed, jax.random.key(seed), data_mesh()
        self.random = isinstance(forward, Randomized)
        self.forward = jax.device_put(keyed(forward), replicated(self.mesh))
        self.predict = Predictor(self.forward, self.mesh, self.key, batch_size)
        self.num_classes = self.predict(images[:1], np.zeros(1, int)).shape[-1]
        check_labels(labels, self.num_classes)
        self.attacks = {
            name: attack.resolve(threat.norm, self.num_classes)
            for name, attack in attacks.items()
        }
        self.question = self._question(images, labels)
        self.ledger = Ledger(self.question, images, labels, state_dir)

    def _question(self, images, labels):
        """What is asked; a state folder answers no other question."""
        keys = jax.random.split(self.key, 1)
        return {
            "schema": SCHEMA,
            "jax": jax.__version__,
            "model": fingerprint_of_model(self.forward, images[:1], keys),
            "data": fingerprint_of_data(images, labels),
            "threat": {"norm": self.threat.norm, "eps": float(self.threat.eps)},
            "seed": self.seed,
            "attacks": {name: asdict(a) for name, a in self.attacks.items()},
        }

    def clean(self, asked):
        """Predictions without an attack, and a look at how the model behaves."""
        ledger, looked = self.ledger, np.arange(min(LOOKED_AT, len(self.ledger.labels)))
        if ledger.attack > 0:
            return
        logits = self.predict(ledger.images, np.arange(len(ledger.labels)))
        ledger.ranks = _ranks(logits)
        ledger.clean_predictions = ledger.ranks[:, 0].copy()
        ledger.adversarial_predictions = ledger.ranks[:, 0].copy()
        ledger.broken_by[ledger.ranks[:, 0] != ledger.labels] = 0
        found = checks.of_logits(logits) + checks.of_precision(logits)
        found += checks.of_scale(logits)
        found += checks.of_accuracy(ledger.broken_by == -1, self.num_classes)
        found += checks.of_eps(self.threat.norm, self.threat.eps, ledger.images[0].size)
        found += checks.of_classes(
            asked, self.attacks, self.threat.norm, self.num_classes
        )
        found += checks.of_budget(self.attacks, self.random)
        if not self.random:
            few = ledger.images[looked]
            again = [self.predict(few, looked) for _ in range(REPEATS)]
            other = self.predict(few, looked, batch_size=self.predict.other_batch_size)
            found += checks.of_repetition(again)
            found += checks.of_batches(again[0], other)
        if not self.random and self._climbs():
            found += gradients.judge(
                gradients.measure(
                    self.predict, few, looked, ledger.labels[looked], self.threat
                )
            )
        ledger.notes["warnings"] = [asdict(warning) for warning in found]
        ledger.attack = 1
        ledger.save()

    def _climbs(self):
        """Whether any attack uses gradients; a forward need not have them otherwise."""
        return any(a.passes(self.num_classes)[1] for a in self.attacks.values())

    def attack(self, number, name, progress):
        """Everything that is left, against one attack."""
        attack = self.attacks[name]
        one = OneAttack(number, name, attack, self.threat, self.ledger, self.predict)
        size = even_size(
            self.predict.batch_size, len(one.work), attack.num_chains, self.mesh.size
        )
        key = jax.random.fold_in(self.key, number)
        runner = SlotRunner(attack, self.forward, self.threat, key, self.mesh, size)
        one.run(runner, progress=progress, num_classes=self.num_classes)

    def audit(self):
        """Ask once more about every stored image, in batches of another size."""
        ledger = self.ledger
        ids = np.flatnonzero(ledger.broken_by > 0)
        self.unstable = ids[:0]
        if not len(ids):
            return
        size = self.predict.other_batch_size
        logits = self.predict(ledger.x_adv[ids], ids, batch_size=size)
        self.unstable = ids[logits.argmax(-1) == ledger.labels[ids]]

    def report(self, seconds, class_names):
        """What was found, with every warning."""
        ledger = self.ledger
        failed = ledger.notes.get("failed", {})
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
            broken_by=ledger.broken_by,
            seconds=seconds,
            class_names=tuple(class_names),
            warnings=tuple(warnings),
            fingerprints={k: self.question[k] for k in ("model", "data")},
            effort=ledger.notes.get("effort", {}),
        )


def _ranks(logits):
    """Classes by falling logit, the first few; of equals the lower number first."""
    order = np.argsort(-logits, axis=1, kind="stable")
    return order[:, :MAX_RANKS].astype(np.int32)
