"""Optimizers of the recipes: AdamW and SGD with timm's weight-decay exemptions.

    tx = partition(adamw(schedule, weight_decay=0.5), trainable=(".*",))
    tx = partition(accumulate(adamw(schedule, weight_decay=0.5), 4), trainable=(".*",))

Schedules come from `robustvit.training.schedules`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import jax
import optax
from jax.tree_util import tree_map_with_path

from robustvit.types import PyTree

# Parameters that are not vectors and still are not decayed, by exact torch name.
EXEMPT = ("cls_token", "pos_embed")


def path_name(path: Sequence) -> str:
    """The path of a leaf as text: `blocks_0/attn/qkv/kernel`."""
    return "/".join(str(getattr(key, "key", key)) for key in path)


def decayed(params: PyTree) -> PyTree:
    """True for each parameter that weight decay applies to.

    Exempt are vectors (biases, norms, LayerScale), the class token and the table of
    positions. XCiT's temperatures and its projection of positions are decayed, as in
    the published runs.
    """

    def is_decayed(path, leaf):
        return leaf.ndim > 1 and path_name(path) not in EXEMPT

    return tree_map_with_path(is_decayed, params)


def adamw(
    schedule: optax.Schedule,
    *,
    weight_decay: float,
    b1: float = 0.9,
    b2: float = 0.999,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """AdamW with decoupled decay times the learning rate; clipping where > 0."""
    tx = optax.adamw(
        schedule, b1=b1, b2=b2, eps=1e-8, weight_decay=weight_decay, mask=decayed
    )
    return _clipped(tx, clip_norm)


def sgd(
    schedule: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = True,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """SGD with torch's coupled decay (added to the gradient); clipping where > 0."""
    tx = optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.sgd(schedule, momentum=momentum or None, nesterov=nesterov),
    )
    return _clipped(tx, clip_norm)


def _clipped(tx, clip_norm):
    if clip_norm <= 0:
        return tx
    return optax.chain(optax.clip_by_global_norm(clip_norm), tx)


def accumulate(
    tx: optax.GradientTransformation, steps: int
) -> optax.GradientTransformation:
    """Update once every `steps` steps, with the mean of their gradients.

    Clipping, decay and schedules are inside and see the mean; schedules count updates.
    Belongs inside `partition`, or frozen parameters would have sums of gradients too.

    Raises:
      ValueError: if `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"optim.accumulate={steps} must be at least 1")
    if steps == 1:
        return tx
    return optax.MultiSteps(tx, steps).gradient_transformation()


def partition(
    tx: optax.GradientTransformation, trainable: Sequence[str]
) -> optax.GradientTransformation:
    """Train only the parameters whose path a pattern of `trainable` is found in.

    The rest stays bit-identical, has no optimizer state, and XLA drops its gradients.

    Raises:
      ValueError: on `init`, for a pattern that matches no parameter.
    """
    if list(trainable) == [".*"]:
        return tx

    def labels(params: PyTree) -> PyTree:
        names = [path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)]
        for pattern in trainable:
            if not any(re.search(pattern, name) for name in names):
                raise ValueError(
                    f"trainable pattern {pattern!r} matches no parameter; "
                    f"there are e.g. {', '.join(names[:3])}"
                )

        def label(path, _):
            found = any(re.search(p, path_name(path)) for p in trainable)
            return "train" if found else "freeze"

        return tree_map_with_path(label, params)

    return optax.partition({"train": tx, "freeze": optax.set_to_zero()}, labels)
