"""RobustBench's protocol: what it asks of a model, and its two ways to tell the answer.

    rules = rules_of("imagenet", "linf")     # AutoAttack standard at 4/255, seed 0
    report = evaluate(forward, images, labels, rules.threat, autoattack(), seed=0)
    entry = to_entry(report, rules, ModelInfo(name="...", authors="..."))
    print("\\n".join(log_lines(report)))     # as AutoAttack logs, which people read

The accuracy that counts is the one of the saved adversarial images, asked once more:
`report.reevaluated_accuracy`.

Reference: Croce et al. 2021, arXiv:2010.09670.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustvit import lookup
from robustvit.data.robustbench import NUM_IMAGES, SPLIT
from robustvit.data.transforms import EvalTransform
from robustvit.evaluation.report import Report
from robustvit.threat import ThreatModel, format_eps

# The leaderboards: eps by dataset and norm.
EPS = {
    "cifar10": {"linf": "8/255", "l2": "0.5"},
    "cifar100": {"linf": "8/255", "l2": "0.5"},
    "imagenet": {"linf": "4/255"},
}
# Warnings that make an entry "unreliable": AutoAttack's own flags, and ours that mean
# the same, gradients that lead nowhere and answers that depend on the company. Not
# "audit", whose images the re-evaluation has counted, nor "few-classes", which no
# dataset of RobustBench has.
UNRELIABLE = frozenset(
    (
        "softmax", "randomized", "batch-dependent",
        "zero-gradient", "plateau", "square-improves", "gradient-mismatch", "saturated",
    )
)  # fmt: skip
CIFAR_SIZE = 32
CHUNK = 256  # images at a time, of those that are a file


@dataclass(frozen=True)
class Rules:
    """What is fixed for a dataset and a norm; the attack is AutoAttack standard."""

    dataset: str  # cifar10, cifar100 or imagenet
    norm: str
    seed: int = 0

    @property
    def eps(self) -> str:
        """As it is written, "8/255" or "0.5"."""
        return EPS[self.dataset][self.norm]

    @property
    def threat(self) -> ThreatModel:
        """The norm and eps of the leaderboard."""
        return ThreatModel(self.norm, self.eps)

    @property
    def num_images(self) -> int:
        """Images that the leaderboard's number is over."""
        return NUM_IMAGES[self.dataset]

    def split(self, examples: int | None) -> str:
        """The first `examples` images; None is all, a wrong number a ValueError."""
        if examples is None:
            return SPLIT
        if not 1 <= examples <= self.num_images:
            raise ValueError(
                f"got {examples} examples, wanted 1 to {self.num_images:,}, the images "
                f"of {self.dataset} that RobustBench has"
            )
        return f"{SPLIT}[:{examples}]"

    def check_preprocessing(self, transform: EvalTransform) -> None:
        """ValueError if images are not what RobustBench attacks.

        CIFAR: the pixels as they are. ImageNet: what the model was published with, by
        timm's rule, which for XCiT is Resize(224, bicubic), CenterCrop(224).
        """
        if self.dataset != "imagenet" and transform != EvalTransform(CIFAR_SIZE):
            raise ValueError(
                f"RobustBench attacks {self.dataset} at its own {CIFAR_SIZE}x"
                f"{CIFAR_SIZE} pixels, but this run's images go through {transform}"
            )


def rules_of(dataset: str, norm: str) -> Rules:
    """The rules of a leaderboard; ValueError if there is none."""
    if norm not in EPS[dataset]:
        raise ValueError(
            f"RobustBench has no {norm} leaderboard for {dataset}, only "
            f"{' and '.join(EPS[dataset])}"
        )
    return Rules(dataset, norm)


@dataclass(frozen=True)
class ModelInfo:
    """What RobustBench wants to know of a model and nobody can measure.

    Attributes:
      reported: robust accuracy that the paper claims, in percent, like "47.60".
      additional_data: whether it was trained on more than the dataset's training set.
      number_forward_passes: of one prediction; 1 unless the model is an ensemble.
    """

    name: str = ""
    authors: str = ""
    link: str = ""
    venue: str = ""
    architecture: str = ""
    reported: str = ""
    additional_data: bool | None = None
    number_forward_passes: int | None = None


KINDS = {"additional_data": bool, "number_forward_passes": int}


def read_model_info(path: str | Path) -> ModelInfo:
    """Read a JSON object with any of the fields of `ModelInfo`.

    Raises:
      ValueError: naming the key that is unknown or has the wrong type.
    """
    try:
        fields = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} holds no JSON object, wanted one like {{'name': ..}}")
    known = asdict(ModelInfo())
    for key, value in fields.items():
        if key not in known:
            raise ValueError(f"{path}: no field {key!r}: {lookup.nearest(key, known)}")
        kind = KINDS.get(key, str)
        if type(value) is not kind:
            raise ValueError(f"{path}: {key}={value!r} is not of type {kind.__name__}")
    return ModelInfo(**fields)


def to_entry(report: Report, rules: Rules, info: ModelInfo) -> dict[str, Any]:
    """The model's file in RobustBench's `model_info`; accuracies are percent strings.

    What `info` leaves out stays "" or None. "unreliable" says that the report has a
    warning out of `UNRELIABLE`; a footnote, that not all images were attacked.
    """
    n = len(report.labels)
    few = n < rules.num_images
    return {
        "link": info.link,
        "name": info.name,
        "authors": info.authors,
        "additional_data": info.additional_data,
        "number_forward_passes": info.number_forward_passes,
        "dataset": rules.dataset,
        "venue": info.venue,
        "architecture": info.architecture,
        "eps": rules.eps,
        "clean_acc": _percent(report.clean_accuracy),
        "reported": info.reported,
        "autoattack_acc": _percent(report.reevaluated_accuracy),
        "unreliable": any(w.name in UNRELIABLE for w in report.warnings),
        **({"footnote": f"first {n:,} of {rules.num_images:,} images"} if few else {}),
    }


def log_lines(report: Report) -> list[str]:
    """The report in the lines of AutoAttack's log, and RobustBench's last word."""
    lines = [f"initial accuracy: {report.clean_accuracy:.2%}"]
    seconds = 0.0
    for name, accuracy in report.accuracy_after.items():
        seconds += report.effort.get(name, {}).get("seconds", 0.0)
        lines.append(
            f"robust accuracy after {name.upper()}: {accuracy:.2%} "
            f"(total time {seconds:.1f} s)"
        )
    norm = report.threat.norm.capitalize()
    largest, bad, high, low = _extremes(report)
    return [
        *lines,
        f"max {norm} perturbation: {largest:.5f}, nan in tensor: {bad}, "
        f"max: {high:.5f}, min: {low:.5f}",
        f"robust accuracy: {report.robust_accuracy:.2%}",
        f"robust accuracy, re-evaluated: {report.reevaluated_accuracy:.2%} "
        f"({report.threat.norm}, eps {_written(report.threat)}, "
        f"{len(report.labels):,} images)",
    ]


def _percent(share):
    return f"{100 * share:.2f}"


def _written(threat):
    """Levels of 255 are for linf; an l2 eps of 1 is no 255/255."""
    eps = float(threat.eps)
    return format_eps(eps) if threat.norm == "linf" else f"{eps:g}"


def _extremes(report):
    """Largest perturbation, number of NaN, largest and smallest value."""
    found = []
    for i in range(0, len(report.labels), CHUNK):
        x_adv, x = (np.asarray(a[i : i + CHUNK]) for a in (report.x_adv, report.images))
        distance = np.max(report.threat.distance(x_adv, x))
        found.append((distance, np.isnan(x_adv).sum(), x_adv.max(), x_adv.min()))
    distances, bad, highs, lows = zip(*found, strict=True)
    return float(max(distances)), int(sum(bad)), float(max(highs)), float(min(lows))
