"""robustvit: adversarially robust vision models in JAX and Flax.

import robustvit as rv

model, variables = rv.load_run("runs/quickstart")
forward = rv.logits_fn(model, variables)          # images in [0, 1] -> logits
report = rv.evaluate(forward, images, labels, rv.ThreatModel("linf", 8 / 255),
                     rv.autoattack("standard"))
report.robust_accuracy
"""

from __future__ import annotations

from typing import Any

from robustvit.attacks import APGD, FAB, PGD, LabelAttack, Square, autoattack, fgsm
from robustvit.evaluation import Randomized, Report, evaluate, logits_fn
from robustvit.interop import load_hf, load_torch, save_torch
from robustvit.models import create_model
from robustvit.threat import ThreatModel
from robustvit.types import Outputs

__version__ = "0.1.0"


def load_run(workdir: str, step: int | str = "best") -> tuple[Any, dict[str, Any]]:
    """Model and variables of a training run; see `robustvit.runs.load_run`.

    Args:
      workdir: folder of the run; may be remote, like "gs://bucket/run".
      step: "best" (by the run's own metric), "latest", or a number.
    """
    # Here, because checkpoints and datasets make the import heavy.
    from robustvit.runs import load_run

    return load_run(workdir, step)


__all__ = [
    "APGD",
    "FAB",
    "PGD",
    "LabelAttack",
    "Outputs",
    "Randomized",
    "Report",
    "Square",
    "ThreatModel",
    "autoattack",
    "create_model",
    "evaluate",
    "fgsm",
    "load_hf",
    "load_run",
    "load_torch",
    "logits_fn",
    "save_torch",
]
