"""Robust accuracy of any JAX function: attacks over a dataset, worst case per example.

    report = evaluate(forward, images, labels, ThreatModel("linf", 8 / 255),
                      {"pgd-20": LabelAttack(PGD(20, 2 / 255), restarts=2)})

An attack sees only what all attacks before it failed to break, always starts from the
clean image, and draws its randomness from the seed and the example's place in the data:
results do not depend on the batch size or the number of devices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from robustvit.attacks import LabelAttack
from robustvit.evaluation.report import Report
from robustvit.parallel import data_mesh, put_batch
from robustvit.threat import ThreatModel
from robustvit.types import Forward

# Distances are recomputed in float32 from values of size up to 1.
DISTANCE_SLACK = 1e-6

Chunk = tuple[np.ndarray, np.ndarray]


def logits_fn(model: Any, variables: Any, *, precise: bool = True) -> Forward:
    """The model as a function of images alone, in evaluation mode.

    Args:
      model: a module of `robustvit.models`.
      variables: {"params": ..., "batch_stats": ...}.
      precise: compute in float32 whatever the model was trained in, as reported
        robustness should be.
    """
    if precise and hasattr(model, "dtype"):
        model = model.clone(dtype=jnp.float32)
    # A Partial carries the weights as arguments; a closure would compile them in.
    return jax.tree_util.Partial(partial(_logits, model), variables)


def _logits(model, variables, images):
    return model.apply(variables, images, train=False).logits


def evaluate(
    forward: Forward,
    images: np.ndarray | Iterable[Chunk],
    labels: np.ndarray | None,
    threat: ThreatModel,
    attacks: Mapping[str, LabelAttack],
    *,
    seed: int = 0,
    batch_size: int = 128,
    class_names: tuple[str, ...] = (),
    progress: bool = True,
) -> Report:
    """Clean accuracy, and what is left of it after each of `attacks` in turn.

    Args:
      forward: images (b, h, w, 3) in [0, 1] to logits (b, k); deterministic, each
        example by itself. Anything that jax can differentiate.
      images: float32 (n, h, w, 3) in [0, 1]; or, with `labels=None`, an iterable of
        pairs (images, labels), of which one at a time is on the device.
      labels: int (n,).
      threat: which perturbations count.
      attacks: by name, in order. With none, only clean accuracy is measured.
      seed: of everything random.
      batch_size: examples at a time, rounded up to a multiple of the devices.
      class_names: for the picture.
      progress: show a bar.

    Raises:
      ValueError: for images that are not float in [0, 1], labels outside the logits,
        logits that are not finite, or an attack that left the threat model.
    """
    start = time.perf_counter()
    bar = tqdm(unit="img", desc="clean", disable=not progress, leave=False)
    mesh = data_mesh()
    runner = _Runner(forward, threat, jax.random.key(seed), mesh, batch_size, bar)
    parts: dict[str, list[np.ndarray]] = {}
    first = 0
    with bar, jax.default_matmul_precision("highest"):
        for chunk in _chunks(images, labels):
            for name, value in runner.run(*chunk, first, attacks).items():
                parts.setdefault(name, []).append(value)
            first += len(chunk[0])
    if not first:
        raise ValueError("there is nothing to evaluate: no images were given")
    return Report(
        threat=ThreatModel(threat.norm, float(threat.eps)),
        attacks=dict(attacks),
        seed=seed,
        seconds=time.perf_counter() - start,
        class_names=tuple(class_names),
        **{name: np.concatenate(values) for name, values in parts.items()},
    )


def _chunks(images, labels) -> Iterator[Chunk]:
    if labels is not None:
        yield np.asarray(images), np.asarray(labels)
    elif isinstance(images, np.ndarray | jax.Array):
        raise ValueError("labels=None needs images as an iterable of (images, labels)")
    else:
        for part, part_labels in images:
            yield np.asarray(part), np.asarray(part_labels)


def _check(images, labels):
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(labels):
        raise ValueError(
            "wanted images (n, h, w, 3) and labels (n,), "
            f"got {images.shape} and {labels.shape}"
        )
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"images are {images.dtype}: give float32 in [0, 1], e.g. images / 255"
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"images must be in [0, 1], got [{low:g}, {high:g}]: normalisation "
            "belongs inside the model"
        )


class _Runner:
    """Compiled programs and the data they run on, for one evaluation."""

    def __init__(self, forward, threat, key, mesh, batch_size, bar):
        plain = not isinstance(forward, jax.tree_util.Partial)
        # A fresh function, because jit compares static callables by hash.
        self._forward = (
            jax.tree_util.Partial(lambda x: forward(x)) if plain else forward
        )
        self._threat, self._key, self._mesh, self._bar = threat, key, mesh, bar
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._predict = jax.jit(lambda f, x: f(x))
        self._programs: dict[LabelAttack, Callable] = {}

    def run(self, images, labels, first, attacks):
        """Everything about one chunk, whose first example is number `first`."""
        _check(images, labels)
        images = images.astype(np.float32)
        self._bar.reset(total=len(images))
        clean = self._predictions(images, labels)
        robust = clean == labels
        result = {
            "images": images,
            "x_adv": images.copy(),
            "labels": labels.astype(np.int32),
            "clean_predictions": clean,
            "adversarial_predictions": clean.copy(),
            "broken_by": np.where(robust, -1, 0).astype(np.int8),
        }
        for number, (name, attack) in enumerate(attacks.items(), 1):
            for restart in range(attack.restarts):
                todo = np.flatnonzero(result["broken_by"] == -1)
                self._bar.set_description(f"{name} {restart + 1}/{attack.restarts}")
                self._bar.reset(total=len(todo))
                key = jax.random.fold_in(jax.random.fold_in(self._key, number), restart)
                self._attack(attack, number, key, result, todo, first)
        return result

    def _attack(self, attack, number, key, result, todo, first):
        program = self._program(attack)
        for ids in self._batches(todo):
            x, y = result["images"][ids], result["labels"][ids]
            x_adv = self._padded(program, key, x, y, (first + ids).astype(np.int32))
            self._check_inside(x_adv, x, attack)
            prediction = self._logits(x_adv, y).argmax(-1)
            won = ids[prediction != y]
            result["x_adv"][won] = x_adv[prediction != y]
            result["adversarial_predictions"][won] = prediction[prediction != y]
            result["broken_by"][won] = number
            self._bar.update(len(ids))

    def _program(self, attack):
        def program(forward, threat, key, x, y, index):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
            return attack(forward, x, y, threat, keys)

        if attack not in self._programs:
            self._programs[attack] = partial(
                jax.jit(program), self._forward, self._threat
            )
        return self._programs[attack]

    def _batches(self, ids):
        for i in range(0, len(ids), self._batch_size):
            yield ids[i : i + self._batch_size]

    def _padded(self, program, key, *arrays):
        """Run on a full batch, whose rows past the given ones repeat the first."""
        rows = len(arrays[0])
        fill = np.zeros(self._batch_size - rows, int)
        batch = [np.concatenate([a, a[fill]]) for a in arrays]
        args = put_batch(batch, self._mesh)
        args = args if key is None else [key, *args]
        return np.array(jax.device_get(program(*args))[:rows])

    def _logits(self, images, labels):
        logits = self._padded(partial(self._predict, self._forward), None, images)
        if not np.isfinite(logits).all():
            raise ValueError("the model's logits are not finite on some images")
        if labels.min() < 0 or labels.max() >= logits.shape[-1]:
            raise ValueError(
                f"labels go from {labels.min()} to {labels.max()}, but there are "
                f"{logits.shape[-1]} logits"
            )
        return logits

    def _predictions(self, images, labels):
        parts = []
        for ids in self._batches(np.arange(len(images))):
            logits = self._logits(images[ids], labels[ids])
            parts.append(logits.argmax(-1).astype(np.int32))
            self._bar.update(len(ids))
        return np.concatenate(parts)

    def _check_inside(self, x_adv, x, attack):
        distance = float(np.max(self._threat.distance(x_adv, x)))
        eps = float(self._threat.eps)
        if distance > eps * (1 + DISTANCE_SLACK) + DISTANCE_SLACK or not (
            x_adv.min() >= 0 and x_adv.max() <= 1
        ):
            raise ValueError(
                f"{attack} left the threat model: distance {distance:g} for "
                f"eps={eps:g}, values in [{x_adv.min():g}, {x_adv.max():g}]"
            )
