"""Do the gradients that attacks climb belong to the function that they attack?

A derivative by automatic differentiation is compared with a central difference of the
forward alone, along random directions. Straight-through estimates, detached parts,
staircases and low precision make the two disagree; smooth parts and the kinks of ReLUs
do not.

    slopes = measure(predict, images, ids, labels, threat)
    warnings = judge(slopes)
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from robustvit.evaluation.checks import Warning
from robustvit.evaluation.predictor import Predictor
from robustvit.threat import ThreatModel

STEP = 0.25 / 255  # of a difference, in every value of an image
DIRECTIONS = 2  # at every point
ROUNDING = 32 * float(np.finfo(np.float32).eps)  # of logits, relative to the largest
MISMATCH = 0.25  # median disagreement
FLAT = 0.1  # share of points without a gradient


@dataclass(frozen=True)
class Slopes:
    """Of the margin, at a clean and a perturbed point per image.

    Attributes:
      claimed: derivatives (points, directions) by automatic differentiation.
      seen: the same by finite differences.
      noise: what rounding alone can do to the latter, (points, 1).
      blind: which points have no gradient at all, (points,).
    """

    claimed: np.ndarray
    seen: np.ndarray
    noise: np.ndarray
    blind: np.ndarray

    @property
    def disagreement(self) -> float:
        """Median over the points; 0 for equal slopes, 1 for opposite or absent ones."""
        size = np.abs(self.claimed) + np.abs(self.seen) + self.noise
        error = np.abs(self.claimed - self.seen) / size
        # Where nothing moves there is nothing to compare.
        error = error[~self.blind | (np.abs(self.seen) > self.noise).any(1)]
        return float(np.median(error.mean(1))) if len(error) else 0.0


def measure(
    predict: Predictor,
    images: np.ndarray,
    ids: np.ndarray,
    labels: np.ndarray,
    threat: ThreatModel,
) -> Slopes:
    """Both kinds of slopes: two gradients and eight forwards an image."""
    keys = jax.random.split(jax.random.key(0), len(images))
    near = np.asarray(threat.random_start(images, keys))
    points = np.clip(np.concatenate([images, near]), STEP, 1 - STEP)
    ids, labels = np.tile(ids, 2), np.tile(labels, 2)
    gradient = predict.gradients(points, ids, labels)
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (DIRECTIONS, *points.shape)).astype(np.float32)
    moved = np.stack([points + STEP * signs, points - STEP * signs])
    every = moved.reshape(-1, *points.shape[1:])
    logits = predict(every, np.tile(ids, 2 * DIRECTIONS)).astype(np.float64)
    margins = _margins(logits, np.tile(labels, 2 * DIRECTIONS))
    above, below = margins.reshape(2, DIRECTIONS, len(points))
    largest = np.abs(logits).max(1).reshape(-1, len(points)).max(0)
    return Slopes(
        claimed=(gradient * signs).sum((2, 3, 4), dtype=np.float64).T,
        seen=((above - below) / (2 * STEP)).T,
        noise=ROUNDING * largest[:, None] / (2 * STEP),
        blind=np.asarray(~gradient.any((1, 2, 3))),
    )


def judge(slopes: Slopes) -> list[Warning]:
    """What the slopes say against the gradients."""
    found = []
    if slopes.blind.mean() > FLAT:
        text = (
            f"the margin has no gradient at {slopes.blind.mean():.0%} of the points "
            "looked at: attack what is behind the flat part"
        )
        found.append(Warning("zero-gradient", text))
    if not slopes.disagreement <= MISMATCH:  # nor NaN
        text = (
            f"gradients and finite differences disagree by {slopes.disagreement:.0%}: "
            "look for rounding, stop_gradient, low precision or a noisy surface in the "
            "forward, and attack a smooth, attached version of it"
        )
        found.append(Warning("gradient-mismatch", text))
    return found


def _margins(logits, labels):
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    return others.max(1) - logits[rows, labels]
