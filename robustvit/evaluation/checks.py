"""Does the number mean what it says? Named warnings for the known ways it may not.

Most follow the flags of AutoAttack (Croce & Hein 2020, arXiv:2003.01690, and the
documentation of its authors' code); the others are ours. Whether gradients belong to
the forward at all is measured in gradients.py.

    for warning in warnings: print(warning)      # "softmax: the model returns ..."
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from robustvit.attacks import APGD, PGD, Square

SAME_LOGITS = 1e-4  # largest distance of unit logits between two calls
SAME_BATCH = 1e-3  # the same across batch sizes, which round differently
SQUARE_GAIN = 0.002  # accuracy that only Square took away
BLIND = 0.01  # share of failed climbs without a gradient
FLAT = 0.1  # share of failed climbs that never left the first loss
FEWEST = 5  # such climbs that count; fewer may be chance
PROBABILITY = 1e-5
ENOUGH = 20  # examples from which clean accuracy is held against chance
BARELY = 1 - 1e-6  # of eps, so that rounding does not matter
UNDERFLOW = 88.0  # margin whose softmax is 0 in float32, and the gradient with it
LATE = 0.2  # share of an attack's successes that came in its last quarter
# norm: mean size of a change per value that is too small or too large to be meant; l2
# and l1 count many values, most of which barely change.
USUAL_EPS = {
    "linf": (1 / 10 / 255, 1 / 2),
    "l2": (1 / 64 / 255, 1 / 4),
    "l1": (1 / 64 / 255, 1 / 20),
}

Logits = np.ndarray
Predict = Callable[..., Logits]


@dataclass(frozen=True)
class Warning:
    """Something about an evaluation that its reader should know."""

    name: str
    message: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.name}: {self.message}"


def of_logits(logits: Logits) -> list[Warning]:
    """Probabilities instead of logits."""
    sums = np.abs(logits.sum(1) - 1) < PROBABILITY
    inside = logits.min() > -PROBABILITY and logits.max() < 1 + PROBABILITY
    if not (inside and sums.all()):
        return []
    text = (
        "the model returns probabilities, whose gradients vanish where it is sure: "
        "evaluate its logits"
    )
    return [Warning("softmax", text)]


def of_precision(logits: Logits) -> list[Warning]:
    """Logits that all lie on the grid of a 16-bit type."""
    few = np.unique(logits).size <= 2 * logits.shape[1]  # of a constant model, say
    for dtype in (jnp.bfloat16, np.float16):
        with np.errstate(over="ignore"):
            coarse = logits.astype(dtype).astype(np.float32)
        if not few and (coarse == logits).all():
            text = (
                f"every logit is a {np.dtype(dtype).name} number, which hides small "
                "changes: compute in float32"
            )
            return [Warning("low-precision", text)]
    return []


def of_scale(logits: Logits) -> list[Warning]:
    """Logits so far apart that cross-entropy is flat in float32."""
    top = np.sort(logits.astype(np.float32), axis=1)[:, -2:]
    margin = float(np.median(top[:, -1] - top[:, 0])) if top.shape[1] > 1 else 0.0
    if margin <= UNDERFLOW:
        return []
    text = (
        f"the two largest logits are typically {margin:.3g} apart, where cross-entropy "
        "has no gradient in float32: divide the logits, or attack with DLR"
    )
    return [Warning("saturated", text)]


def of_accuracy(right: np.ndarray, num_classes: int) -> list[Warning]:
    """A model that may as well guess; `right` is bool (n,)."""
    n, share = len(right), 1 / num_classes
    guessed = n * share + 2 * np.sqrt(n * share * (1 - share))
    if n < ENOUGH or right.sum() > guessed:
        return []
    text = (
        f"clean accuracy is {right.mean():.1%} with {num_classes} classes, which is no "
        "better than chance: check the order of the labels, the head and the weights"
    )
    return [Warning("chance", text)]


def of_eps(norm: str, eps: float, values: int) -> list[Warning]:
    """An eps in another unit; `values` are the numbers in an image."""
    low, high = USUAL_EPS[norm]
    scale = values ** {"linf": 0.0, "l2": 0.5, "l1": 1.0}[norm]
    if eps == 0 or low * scale <= eps <= high * scale:
        return []
    wrong = "small" if eps < low * scale else "large"
    text = (
        f"{norm} eps {eps:.3g} is very {wrong} for images in [0, 1] with {values} "
        "values: was it divided by 255 exactly once?"
    )
    return [Warning("eps-unit", text)]


def of_reach(
    attacks: Mapping[str, Any], eps: float, late: Mapping[str, Mapping[str, int]]
) -> list[Warning]:
    """Attacks that stopped too early; counts of all and of late successes by attack."""
    found = []
    for name, attack in attacks.items():
        steps = getattr(attack, "attack", None)
        if isinstance(steps, PGD) and steps.steps * steps.step_size < eps * BARELY:
            text = f"the steps of {name} do not add up to eps: take more or longer ones"
            found.append(Warning("unfinished", text))
        counts = late.get(name, {}) if isinstance(attack, APGD) else {}
        share = counts.get("late", 0) / max(counts.get("all", 0), 1)
        if counts.get("late", 0) >= FEWEST and share > LATE:
            text = (
                f"{share:.0%} of the successes of {name} came in the last quarter of "
                "its steps: take more steps"
            )
            found.append(Warning("unfinished", text))
    return found


def of_repetition(calls: list[Logits]) -> list[Warning]:
    """Different answers to the same question."""
    spread = max(_distance(calls[0], other) for other in calls[1:])
    if spread <= SAME_LOGITS:
        return []
    text = (
        f"logits differ by up to {spread:.2g} (as unit vectors) between calls: use "
        'autoattack("rand") with `Randomized`, whose gradients are averaged over draws'
    )
    return [Warning("randomized", text)]


def of_batches(whole: Logits, again: Logits) -> list[Warning]:
    """Different answers in different company; both (m, k), of the same images."""
    spread = _distance(whole, again)
    if spread <= SAME_BATCH:
        return []
    text = (
        f"logits move by up to {spread:.2g} (as unit vectors) with the batch around an "
        "image: is a BatchNorm in training mode?"
    )
    return [Warning("batch-dependent", text)]


def of_classes(
    asked: Mapping[str, Any], done: Mapping[str, Any], norm: str, num_classes: int
) -> list[Warning]:
    """Attacks that had to be changed because there are so few classes."""
    changed = [
        f"{name} became {done[name]}"
        for name, attack in asked.items()
        if attack.resolve(norm, 10**6) != done[name]
    ]
    if not changed:
        return []
    text = f"with {num_classes} classes this is not the standard: {'; '.join(changed)}"
    return [Warning("few-classes", text)]


def of_climbs(failed: Mapping[str, Mapping[str, int]]) -> list[Warning]:
    """Losses that gave the attacks nothing to climb; counts of symptoms by attack."""
    found = []
    for name, counts in failed.items():
        total = max(counts.get("chains", 0), 1)
        for symptom, limit, fewest, text in (
            ("zero-gradient", BLIND, 1, "began without any gradient"),
            ("plateau", FLAT, FEWEST, "never got above the loss that they began with"),
        ):
            seen = counts.get(symptom, 0)
            share = seen / total
            if share > limit and seen >= fewest:
                text = (
                    f"{share:.0%} of the runs of {name} that broke nothing {text}: "
                    "gradients seem to be masked, so robustness may be overestimated"
                )
                found.append(Warning(symptom, text))
    return found


def of_square(attacks: Mapping[str, Any], broken_by: np.ndarray) -> list[Warning]:
    """A blind search that beats the gradients."""
    numbers = dict(zip(attacks, range(1, len(attacks) + 1), strict=True))
    white = [numbers[k] for k, v in attacks.items() if not isinstance(v, Square)]
    for name, attack in attacks.items():
        number = numbers[name]
        if not isinstance(attack, Square) or not any(w < number for w in white):
            continue
        extra = int((broken_by == number).sum())
        # One example more is chance in a small sample.
        if extra > 1 and extra / len(broken_by) > SQUARE_GAIN:
            text = (
                f"{name} broke {extra} examples that every gradient attack before it "
                "had missed: gradients seem to be masked; attack it adaptively"
            )
            return [Warning("square-improves", text)]
    return []


def of_budget(attacks: Mapping[str, Any], random: bool) -> list[Warning]:
    """A randomised model whose gradients are not averaged."""
    single = [k for k, v in attacks.items() if isinstance(v, APGD) and v.samples == 1]
    if not random or not single:
        return []
    text = (
        f"the model is randomised, but {', '.join(single)} take one draw per gradient"
    )
    return [Warning("randomized", text)]


def of_audit(disagreeing: np.ndarray, batch_size: int) -> list[Warning]:
    """Stored images whose label changed when everything was looked at again."""
    if not len(disagreeing):
        return []
    shown = ", ".join(map(str, disagreeing[:5]))
    text = (
        f"{len(disagreeing)} stored images (example {shown}, ...) got another label at "
        f"batch size {batch_size}"
    )
    return [Warning("audit", text)]


def _distance(a: Logits, b: Logits) -> float:
    a, b = (
        v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (a, b)
    )
    return float(np.linalg.norm(a - b, axis=1).max())
