"""How objectives call a model, and how they call an attack on it.

`attack_bn` says what BatchNorm (and stochastic depth) do while the attack runs:

- "eval": running statistics, no stochastic depth; deterministic, the default;
- "train": batch statistics and fresh stochastic depth at each step; the running
  statistics stay;
- "train_update": the same, and every forward of the attack moves the running
  statistics, as in the published TPU runs of the Light Recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from robustvit import losses
from robustvit.attacks import PGD
from robustvit.threat import ThreatModel
from robustvit.types import (
    Batch,
    Images,
    Keys,
    Labels,
    Logits,
    PerExample,
    Perturbed,
    PyTree,
    TrainState,
)

ATTACK_BN = ("eval", "train", "train_update")


def example_keys(key: jax.Array, index: Labels, view: Labels | None = None) -> Keys:
    """One key per example, from its place in the dataset and not in the batch.

    Where a batch has several views of an image, each has its own.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    return keys if view is None else jax.vmap(jax.random.fold_in)(keys, view)


def hard_labels(batch: Batch) -> Labels:
    """What attacks and accuracies go by: the likeliest class of a soft target."""
    if "target" in batch:
        return jnp.argmax(batch["target"], -1).astype(batch["label"].dtype)
    return batch["label"]


def cross_entropy(logits: Logits, batch: Batch, smoothing: float) -> PerExample:
    """Of the labels, smoothed; soft targets have their smoothing in them already."""
    if "target" in batch:
        return losses.soft_cross_entropy(logits, batch["target"])
    return losses.cross_entropy(logits, batch["label"], smoothing=smoothing)


def eval_logits(
    model: Any, params: PyTree, batch_stats: PyTree, images: Images
) -> Logits:
    """Logits in evaluation mode: deterministic, each example by itself."""
    variables = {"params": params, "batch_stats": batch_stats}
    return model.apply(variables, images, train=False).logits


def train_logits(
    model: Any, params: PyTree, batch_stats: PyTree, images: Images, key: jax.Array
) -> tuple[Logits, PyTree]:
    """Logits in training mode, and the running statistics moved by this batch."""
    variables = {"params": params, "batch_stats": batch_stats}
    outputs, moved = model.apply(
        variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
    )
    return outputs.logits, moved.get("batch_stats", batch_stats)


def climb(
    model: Any,
    attack: PGD,
    attack_bn: str,
    loss: Callable[[Logits], PerExample],
    state: TrainState,
    batch: Batch,
    threat: ThreatModel,
    key: jax.Array,
) -> Images | Perturbed:
    """Run `attack` on the model of `state` from the images of `batch`.

    Differentiates with respect to images only. Gives plain images, or `Perturbed`
    when `attack_bn` is "train_update".
    """
    k_start, k_model = jax.random.split(key)
    keys = example_keys(k_start, batch["index"], batch.get("view"))

    def loss_fn(images, step, stats):
        if attack_bn == "eval":
            return loss(eval_logits(model, state.params, stats, images)), stats
        k_step = jax.random.fold_in(k_model, step)
        logits, moved = train_logits(model, state.params, stats, images, k_step)
        return loss(logits), moved if attack_bn == "train_update" else stats

    x_adv, stats = attack.ascend(
        loss_fn, batch["image"], threat, keys, state.batch_stats
    )
    return Perturbed(x_adv, stats) if attack_bn == "train_update" else x_adv


def unpack(x_adv: Images | Perturbed, state: TrainState) -> tuple[Images, PyTree]:
    """Images to train on, and the running statistics to go on from."""
    if isinstance(x_adv, Perturbed):
        return x_adv.images, x_adv.batch_stats
    return x_adv, state.batch_stats


def accuracy(logits: Logits, labels: Labels) -> jax.Array:
    """Share of the batch whose largest logit is its label."""
    return (logits.argmax(-1) == labels).mean()
