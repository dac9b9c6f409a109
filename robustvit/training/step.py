"""The train step and the evaluation step: pure functions, to be jitted by the loop.

One train step for every objective: fold the step into the key, find the images to
train on, differentiate the loss on them, update. Nothing here depends on the number of
devices; the sharding of the arguments decides that.

    step = jax.jit(make_train_step(objective, tx), donate_argnames="state")
    state, metrics = step(state, batch, threat)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from robustvit import losses
from robustvit.attacks import PGD
from robustvit.objectives.forward import eval_logits, example_keys
from robustvit.threat import ThreatModel
from robustvit.types import (
    Augment,
    Batch,
    Metrics,
    Mix,
    Objective,
    PyTree,
    TrainState,
)

TrainStep = Callable[[TrainState, Batch, ThreatModel], tuple[TrainState, Metrics]]


def init_state(
    model: Any,
    tx: optax.GradientTransformation,
    key: jax.Array,
    image_size: int,
    *,
    ema: bool = False,
) -> TrainState:
    """Fresh parameters and optimizer state. Call it under jit to shard at birth."""
    k_params, k_steps = jax.random.split(key)
    images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    variables = model.init(k_params, images, train=False)
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=tx.init(params),
        ema={"params": params, "batch_stats": batch_stats} if ema else {},
        key=k_steps,
    )


def make_train_step(
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    augment: Augment | None = None,
    mixing: Mix | None = None,
    ema_decay: float = 0.0,
    accumulate: int = 1,
) -> TrainStep:
    """Build `(state, batch, threat) -> (state, metrics)`.

    Args:
      objective: what to perturb and what to minimise.
      tx: the optimizer, with its schedule, clipping and freezing inside.
      augment: runs on the device, per example, before the attack; not on the first of
        several views of an image.
      mixing: after that, mixes the examples of a batch and makes their targets soft.
      ema_decay: 0 keeps no average; otherwise parameters and running statistics are
        averaged with this decay after every update.
      accumulate: steps that make one update in `tx`.
    """

    def train_step(state, batch, threat):
        k_augment, k_attack, k_loss = jax.random.split(
            jax.random.fold_in(state.key, state.step), 3
        )
        batch = {**batch, "image": batch["image"].astype(jnp.float32) / 255.0}
        batch = augmented(batch, k_augment, augment, mixing)

        x_adv = objective.perturb(state, batch, threat, k_attack)
        gradient = jax.value_and_grad(objective.loss, has_aux=True)
        (_, (batch_stats, metrics)), grads = gradient(
            state.params, state, batch, x_adv, k_loss
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        new = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        if ema_decay:
            ema = averaged(state.ema, new, ema_decay)
            if accumulate > 1:  # between two updates it stays
                updated = new.step % accumulate == 0
                keep = partial(jnp.where, updated)
                ema = jax.tree.map(keep, ema, state.ema)
            new = new.replace(ema=ema)
        return new, metrics

    return train_step


def augmented(
    batch: Batch, key: jax.Array, augment: Augment | None, mixing: Mix | None
) -> Batch:
    """The batch that the objective sees."""
    if mixing is not None:
        key, k_mix = jax.random.split(key)
    if augment is not None:
        keys = example_keys(key, batch["index"], batch.get("view"))
        images = augment(batch["image"], keys)
        if "view" in batch:
            is_clean = (batch["view"] == 0)[:, None, None, None]
            images = jnp.where(is_clean, batch["image"], images)
        batch = {**batch, "image": images}
    if mixing is not None:
        images, target = mixing(batch["image"], batch["label"], k_mix)
        batch = {**batch, "image": images, "target": target}
    return batch


def averaged(ema: PyTree, state: TrainState, decay: float) -> PyTree:
    """Exponential moving average of what evaluation needs."""
    current = {"params": state.params, "batch_stats": state.batch_stats}
    # Written so that what never changes (input normalisation) is not rounded away.
    return jax.tree.map(
        lambda old, new: old + (1.0 - decay) * (new - old), ema, current
    )


def with_variables(state: TrainState, variables: PyTree) -> TrainState:
    """A fresh state that starts from these weights, laid out as the state is."""
    stats = variables.get("batch_stats", {})
    new = {"params": variables["params"], "batch_stats": stats}
    old = {"params": state.params, "batch_stats": state.batch_stats}
    new = jax.tree.map(lambda a, b: jax.device_put(a, b.sharding), new, old)
    return dataclasses.replace(state, **new, ema=new if state.ema else {})


def evaluation_variables(state: TrainState) -> PyTree:
    """The averaged variables where an average is kept, else the trained ones."""
    if state.ema:
        return state.ema
    return {"params": state.params, "batch_stats": state.batch_stats}


def make_eval_step(model: Any, attack: PGD) -> Callable[..., Metrics]:
    """Build `(variables, batch, threat, key) -> sums` over the unmasked examples.

    `clean` and `robust` count right answers before and after `attack` on the
    cross-entropy, in evaluation mode; `loss` is the clean loss; `count` the examples.
    """

    def eval_step(variables, batch, threat, key):
        images = batch["image"].astype(jnp.float32) / 255.0
        labels, mask = batch["label"], batch["mask"]

        def logits_of(x):
            params, stats = variables["params"], variables["batch_stats"]
            return eval_logits(model, params, stats, x)

        keys = example_keys(key, batch["index"])
        x_adv = attack(
            lambda x: losses.cross_entropy(logits_of(x), labels), images, threat, keys
        )
        clean = logits_of(images)
        right = clean.argmax(-1) == labels
        # An example that is wrong without an attack is not robust.
        robust = right & (logits_of(x_adv).argmax(-1) == labels)
        sums = {
            "clean": right,
            "robust": robust,
            "loss": losses.cross_entropy(clean, labels),
            "count": jnp.ones_like(mask),
        }
        return {name: jnp.sum(values * mask) for name, values in sums.items()}

    return eval_step
