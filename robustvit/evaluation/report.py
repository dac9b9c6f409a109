"""What an evaluation found, as numbers, as JSON and as a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from robustvit.attacks.as_json import to_json
from robustvit.evaluation.checks import Warning
from robustvit.evaluation.descent import SLACK, grid
from robustvit.evaluation.hardware import devices
from robustvit.evaluation.intervals import wilson
from robustvit.threat import ThreatModel, format_eps

SCHEMA = 1


@dataclass(frozen=True)
class Report:
    """Result of `evaluate`; accuracies are fractions.

    Attributes:
      threat, attacks, seed: what was asked.
      images, labels: what it was asked of, (n, h, w, 3) in [0, 1] and (n,).
      x_adv: float32 (n, h, w, 3); the clean image where nothing broke it.
      clean_predictions, adversarial_predictions: int (n,).
      audited_predictions: int (n,); on `x_adv`, once all attacks were over.
      broken_by: int (n,); 0 wrong without an attack, i the i-th attack, -1 robust.
      radius: float (n,); size of the smallest perturbation that is known to break an
        example: 0 if it is wrong without one, infinite if nothing did.
      curve_points: eps up to the threat's at which `radius` was made sure of; 0: none.
      seconds: wall time, compilation included.
      class_names: may be empty.
      warnings: reasons to doubt the numbers.
      fingerprints: of the "model", of its "weights" alone, and of the "data".
      effort: by attack, "seconds", "forwards" and "backwards" (passes of the model, in
        examples), "slots", and how many steps of them were "busy_steps".
    """

    threat: ThreatModel
    attacks: dict[str, Any]
    seed: int
    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    x_adv: np.ndarray = field(repr=False)
    clean_predictions: np.ndarray = field(repr=False)
    adversarial_predictions: np.ndarray = field(repr=False)
    audited_predictions: np.ndarray = field(repr=False)
    broken_by: np.ndarray = field(repr=False)
    radius: np.ndarray = field(repr=False)
    seconds: float
    curve_points: int = 0
    class_names: tuple[str, ...] = ()
    warnings: tuple[Warning, ...] = ()
    fingerprints: dict[str, str] = field(default_factory=dict)
    effort: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def clean_accuracy(self) -> float:
        """Share of examples that are right without an attack."""
        return summary(self.broken_by, self.attacks)["clean_accuracy"]

    @property
    def robust(self) -> np.ndarray:
        """Which examples withstood everything, bool (n,)."""
        return self.broken_by == -1

    @property
    def robust_accuracy(self) -> float:
        """Share of examples that withstood everything: the number to report."""
        return summary(self.broken_by, self.attacks)["robust_accuracy"]

    @property
    def reevaluated_accuracy(self) -> float:
        """Share of `x_adv` that is right when asked again, as RobustBench reports it.

        `robust_accuracy`, unless labels depend on the batch around an image, or on
        chance; a warning says so.
        """
        return float((self.audited_predictions == self.labels).mean())

    @property
    def accuracy_after(self) -> dict[str, float]:
        """Accuracy left after each attack, in order: never rises."""
        return summary(self.broken_by, self.attacks)["accuracy_after"]

    @property
    def curve(self) -> dict[float, float]:
        """Robust accuracy by eps, clean accuracy at 0; empty unless it was asked for.

        Never rises; the last entry is `robust_accuracy`.
        """
        if not self.curve_points:
            return {}
        eps = [0.0, *grid(float(self.threat.eps), self.curve_points).tolist()]
        return {e: float((self.radius > e * (1 + SLACK)).mean()) for e in eps}

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, ready for JSON."""
        return {
            "schema": SCHEMA,
            **summary(self.broken_by, self.attacks),
            "reevaluated_accuracy": self.reevaluated_accuracy,
            "curve": {
                "eps": [format_eps(eps) for eps in self.curve],
                "robust_accuracy": list(self.curve.values()),
            },
            "threat": {
                "norm": self.threat.norm,
                "eps": format_eps(float(self.threat.eps)),
                "eps_float": float(self.threat.eps),
            },
            "attacks": {name: to_json(attack) for name, attack in self.attacks.items()},
            "warnings": [asdict(warning) for warning in self.warnings],
            "fingerprints": self.fingerprints,
            "seed": self.seed,
            "effort": self.effort,
            "seconds": round(self.seconds, 2),
            "device": devices(),
            "versions": {"jax": jax.__version__, "numpy": np.__version__},
            "broken_by": self.broken_by.tolist(),
        }

    def to_json(self, path: str | Path, **extra: Any) -> None:
        """Write `to_dict`, and `extra` beside it, in one piece or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".tmp")
        draft.write_text(json.dumps({**extra, **self.to_dict()}, indent=1))
        os.replace(draft, path)

    def plot(self, path: str | Path, *, rows: int = 6) -> None:
        """Save a picture: accuracies after each attack and by eps, and examples."""
        from robustvit.evaluation.picture import save_picture

        save_picture(self, Path(path), rows)

    def __str__(self) -> str:
        """The numbers, one line each."""
        n = len(self.labels)
        lines = [("clean", self.clean_accuracy), *self.accuracy_after.items()]
        text = [
            f"{self.threat.norm}, eps {format_eps(float(self.threat.eps))}, {n} images"
        ]
        for name, value in lines:
            low, high = wilson(value, n)
            text.append(f"  {name:<12} {value:7.2%}   [{low:.2%}, {high:.2%}]")
        text += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(text)


def summary(broken_by: np.ndarray, attacks: Iterable[str]) -> dict[str, Any]:
    """The numbers that follow from who was broken by which of the named attacks."""
    n = len(broken_by)
    robust = float((broken_by == -1).mean())
    clean = float((broken_by != 0).mean())
    return {
        "num_examples": n,
        "clean_accuracy": clean,
        "clean_interval95": wilson(clean, n),
        "robust_accuracy": robust,
        "robust_interval95": wilson(robust, n),
        "accuracy_after": {
            name: float(((broken_by == -1) | (broken_by > number)).mean())
            for number, name in enumerate(attacks, 1)
        },
    }
