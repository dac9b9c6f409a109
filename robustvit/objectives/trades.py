"""TRADES: clean cross-entropy plus beta times the KL to adversarial predictions.

    objective = trades(model, PGD(steps=10, step_size=1.2 / 255), beta=6.0)

Two differences from the original code, both the Light Recipe's: the attack starts at a
uniform draw from the ball, and the gradient flows through both arguments of the KL.

Reference: Zhang et al. 2019, arXiv:1901.08573.
"""

from __future__ import annotations

from typing import Any

import jax

from robustvit import lookup, losses
from robustvit.attacks import PGD
from robustvit.objectives.forward import (
    ATTACK_BN,
    accuracy,
    climb,
    cross_entropy,
    eval_logits,
    hard_labels,
    train_logits,
    unpack,
)
from robustvit.types import Objective


def trades(
    model: Any,
    attack: PGD,
    *,
    beta: float = 6.0,
    label_smoothing: float = 0.0,
    attack_bn: str = "eval",
) -> Objective:
    """Trade clean accuracy for agreement between clean and adversarial predictions.

    Args:
      model: a module of `robustvit.models`.
      attack: climbs KL(clean predictions || predictions).
      beta: weight of the KL term.
      label_smoothing: of the clean cross-entropy, unless the batch has soft targets.
      attack_bn: see `robustvit.objectives.forward`.

    Raises:
      ValueError: if beta is negative or `attack_bn` does not exist.
    """
    if beta < 0:
        raise ValueError(f"beta={beta} must not be negative")
    lookup.check("attack_bn", attack_bn, ATTACK_BN)

    def perturb(state, batch, threat, key):
        k_target, k_climb = jax.random.split(key)
        images = batch["image"]
        if attack_bn == "eval":
            target = eval_logits(model, state.params, state.batch_stats, images)
        else:
            target, moved = train_logits(
                model, state.params, state.batch_stats, images, k_target
            )
            if attack_bn == "train_update":
                state = state.replace(batch_stats=moved)

        def attacker_loss(logits):
            return losses.kl(target, logits)

        return climb(
            model, attack, attack_bn, attacker_loss, state, batch, threat, k_climb
        )

    def loss(params, state, batch, x_adv, key):
        labels = hard_labels(batch)
        images, stats = unpack(x_adv, state)
        k_clean, k_adv = jax.random.split(key)
        clean, stats = train_logits(model, params, stats, batch["image"], k_clean)
        robust, stats = train_logits(model, params, stats, images, k_adv)
        natural = cross_entropy(clean, batch, label_smoothing).mean()
        drift = losses.kl(clean, robust).mean()
        value = natural + beta * drift
        metrics = {
            "loss": value,
            "kl": drift,
            "clean_accuracy": accuracy(clean, labels),
            "robust_accuracy": accuracy(robust, labels),
        }
        return value, (stats, metrics)

    return Objective(perturb, loss, forwards=7 + attack.forwards)
