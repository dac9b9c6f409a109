"""Early stopping: when the metric that chooses the best checkpoint stopped rising.

For adversarial training that is the robust accuracy, which falls again long before the
clean one does (robust overfitting).

Reference: Rice, Wong & Kolter 2020, arXiv:2002.11569.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def out_of_patience(
    history: Sequence[Mapping[str, Any]], metric: str, patience: int
) -> str | None:
    """The sentence that says why to stop, or None to go on.

    Args:
      history: records of a run; those with `metric` are its validations.
      metric: higher is better; equal is not better.
      patience: validations without a better one to put up with; 0: any number.
    """
    scores = [(r[metric], r["epoch"]) for r in history if metric in r]
    if not patience or not scores:
        return None
    # Of equals the first: max keeps it.
    best = max(range(len(scores)), key=lambda i: scores[i][0])
    waited = len(scores) - 1 - best
    if waited < patience:
        return None
    score, epoch = scores[best]
    return (
        f"stopped after epoch {scores[-1][1]:g}: {metric} has not risen above "
        f"{score:.4g}, that of epoch {epoch:g}, for {waited} epochs "
        f"(checkpoint.patience={patience})"
    )
