"""Per-example losses (b,): positive is worse for the defender, attacks ascend them.

Means over the batch are taken in objectives, never here.

    loss = losses.cross_entropy(logits, labels, smoothing=0.1).mean()
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from robustvit.types import Labels, Logits, PerExample, Targets

# Keeps a flat logit vector from dividing by zero; AutoAttack's constant.
DLR_EPS = 1e-12


def cross_entropy(
    logits: Logits, labels: Labels, *, smoothing: float = 0.0
) -> PerExample:
    """Cross-entropy with labels smoothed towards uniform: (1 - s) nll + s mean(-logp).

    The smoothing is timm's: it spreads `smoothing` over all classes, the true one
    included.
    """
    log_probs = jax.nn.log_softmax(logits)
    nll = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    if smoothing == 0.0:
        return nll
    return (1.0 - smoothing) * nll - smoothing * log_probs.mean(-1)


def soft_cross_entropy(logits: Logits, targets: Targets) -> PerExample:
    """Cross-entropy with a distribution over the classes, as MixUp and CutMix make it.

    Of smoothed labels it is `cross_entropy` with that smoothing.
    """
    return -jnp.sum(targets * jax.nn.log_softmax(logits), -1)


def targeted_cross_entropy(logits: Logits, targets: Labels) -> PerExample:
    """Log-probability of the target: ascending it drives predictions to `targets`."""
    return -cross_entropy(logits, targets)


def kl(logits_p: Logits, logits_q: Logits) -> PerExample:
    """KL(softmax(p) || softmax(q)); differentiable in both arguments."""
    log_p = jax.nn.log_softmax(logits_p)
    log_q = jax.nn.log_softmax(logits_q)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


def margin(logits: Logits, labels: Labels) -> PerExample:
    """Best wrong logit minus the true one (Carlini & Wagner): > 0 is misclassified."""
    true, wrong = _true_and_best_wrong(logits, labels)
    return wrong - true


def dlr(logits: Logits, labels: Labels) -> PerExample:
    """Difference of logits ratio: invariant to shifting and scaling the logits.

    Needs at least 3 classes.

    Reference: Croce & Hein 2020, arXiv:2003.01690, eq. 6.
    """
    top, _ = lax.top_k(logits, 3)
    true, wrong = _true_and_best_wrong(logits, labels)
    return -(true - wrong) / (top[:, 0] - top[:, 2] + DLR_EPS)


def targeted_dlr(logits: Logits, labels: Labels, targets: Labels) -> PerExample:
    """DLR towards one class; needs at least 4 classes.

    Reference: Croce & Hein 2020, arXiv:2003.01690, eq. 7.
    """
    top, _ = lax.top_k(logits, 4)
    true = jnp.take_along_axis(logits, labels[:, None], -1)[:, 0]
    target = jnp.take_along_axis(logits, targets[:, None], -1)[:, 0]
    scale = top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + DLR_EPS
    return -(true - target) / scale


def _true_and_best_wrong(logits: Logits, labels: Labels):
    is_true = jnp.arange(logits.shape[-1]) == labels[:, None]
    true = jnp.sum(jnp.where(is_true, logits, 0.0), -1)
    wrong = jnp.max(jnp.where(is_true, -jnp.inf, logits), -1)
    return true, wrong
