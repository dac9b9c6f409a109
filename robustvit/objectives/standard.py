"""Ordinary training: cross-entropy on clean images. The baseline of every table."""

from __future__ import annotations

from typing import Any

from robustvit import losses
from robustvit.attacks import PGD
from robustvit.objectives.forward import accuracy, train_logits
from robustvit.types import Objective


def standard(
    model: Any, attack: PGD | None = None, *, label_smoothing: float = 0.0
) -> Objective:
    """Cross-entropy on the images as they are.

    `attack` is not used; it is there so that all objectives are built alike.
    """

    def perturb(state, batch, threat, key):
        return batch["image"]

    def loss(params, state, batch, x_adv, key):
        labels = batch["label"]
        logits, stats = train_logits(model, params, state.batch_stats, x_adv, key)
        value = losses.cross_entropy(logits, labels, smoothing=label_smoothing).mean()
        metrics = {"loss": value, "clean_accuracy": accuracy(logits, labels)}
        return value, (stats, metrics)

    return Objective(perturb, loss, forwards=3)
