"""Ordinary training: cross-entropy on clean images. The baseline of every table."""

from __future__ import annotations

from typing import Any

from robustvit.attacks import PGD
from robustvit.objectives.forward import (
    accuracy,
    cross_entropy,
    hard_labels,
    train_logits,
)
from robustvit.types import Objective


def standard(
    model: Any, attack: PGD | None = None, *, label_smoothing: float = 0.0
) -> Objective:
    """Cross-entropy on the images as they are.

    Soft targets of the batch count in place of labels and smoothing. `attack` is not
    used; it is there so that all objectives are built alike.
    """

    def perturb(state, batch, threat, key):
        return batch["image"]

    def loss(params, state, batch, x_adv, key):
        logits, stats = train_logits(model, params, state.batch_stats, x_adv, key)
        value = cross_entropy(logits, batch, label_smoothing).mean()
        right = accuracy(logits, hard_labels(batch))
        metrics = {"loss": value, "clean_accuracy": right}
        return value, (stats, metrics)

    return Objective(perturb, loss, forwards=3)
