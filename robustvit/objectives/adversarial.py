"""Adversarial training: minimise the loss on the images that an attack found.

With FGSM from a random start and a ramp of eps this is the Light Recipe.

    objective = adversarial(model, PGD(steps=1, step_size=6 / 255), label_smoothing=0.1)

References: Madry et al. 2018, arXiv:1706.06083; Debenedetti et al. 2023,
arXiv:2209.07399.
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
    hard_labels,
    train_logits,
    unpack,
)
from robustvit.types import Objective

CLEAN_FORWARD = ("none", "metrics", "update")
ATTACK_LOSSES = ("untargeted", "targeted", "soft")


def adversarial(
    model: Any,
    attack: PGD,
    *,
    label_smoothing: float = 0.1,
    attack_loss: str = "untargeted",
    attack_bn: str = "eval",
    clean_forward: str = "none",
) -> Objective:
    """Cross-entropy on adversarial images.

    Args:
      model: a module of `robustvit.models`.
      attack: climbs the cross-entropy of the hard labels, without smoothing.
      label_smoothing: of the loss that is minimised, unless the batch has soft targets:
        the attack then climbs the loss of their likeliest class, but for "soft".
      attack_loss: "targeted" climbs towards uniformly drawn classes (which may be the
        true one, as in the published code); "soft" climbs the loss of soft targets.
      attack_bn: see `robustvit.objectives.forward`.
      clean_forward: the robust accuracy comes for free, the clean one costs a forward
        pass. "metrics" spends it; "update" also lets it move the running statistics,
        as in the published runs.

    Raises:
      ValueError: for an option that does not exist.
    """
    lookup.check("attack_loss", attack_loss, ATTACK_LOSSES)
    lookup.check("attack_bn", attack_bn, ATTACK_BN)
    lookup.check("clean_forward", clean_forward, CLEAN_FORWARD)

    def perturb(state, batch, threat, key):
        labels = hard_labels(batch)
        k_target, k_climb = jax.random.split(key)

        def attacker_loss(logits):
            if attack_loss == "soft":
                return cross_entropy(logits, batch, 0.0)
            if attack_loss == "untargeted":
                return losses.cross_entropy(logits, labels)
            targets = jax.random.randint(k_target, labels.shape, 0, logits.shape[-1])
            return losses.targeted_cross_entropy(logits, targets)

        return climb(
            model, attack, attack_bn, attacker_loss, state, batch, threat, k_climb
        )

    def loss(params, state, batch, x_adv, key):
        labels = hard_labels(batch)
        images, stats = unpack(x_adv, state)
        k_clean, k_adv = jax.random.split(key)
        metrics = {}
        if clean_forward != "none":
            clean, moved = train_logits(
                model, jax.lax.stop_gradient(params), stats, batch["image"], k_clean
            )
            stats = moved if clean_forward == "update" else stats
            metrics["clean_accuracy"] = accuracy(clean, labels)
        logits, stats = train_logits(model, params, stats, images, k_adv)
        value = cross_entropy(logits, batch, label_smoothing).mean()
        metrics |= {"loss": value, "robust_accuracy": accuracy(logits, labels)}
        return value, (stats, metrics)

    extra = int(clean_forward != "none")
    return Objective(perturb, loss, forwards=3 + attack.forwards + extra)
