"""Images and labels as an evaluation wants them, or one clear sentence why not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

Chunk = tuple[np.ndarray, np.ndarray]
MAX_PLACE = np.iinfo(np.int32).max


def gather(
    images: np.ndarray | Iterable[Chunk], labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """All images as float32 (n, h, w, 3) in [0, 1], and int32 labels (n,), on the host.

    Raises:
      ValueError: for what cannot be that.
    """
    if labels is not None:
        chunks: Any = [(images, labels)]
    elif isinstance(images, np.ndarray | jax.Array):
        raise ValueError("labels=None needs images as an iterable of (images, labels)")
    else:
        chunks = images
    parts = [_checked(np.asarray(x), np.asarray(y)) for x, y in chunks]
    if not sum(len(x) for x, _ in parts):
        raise ValueError("there is nothing to evaluate: no images were given")
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _checked(images, labels):
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(labels):
        raise ValueError(
            "wanted images (n, h, w, 3) and labels (n,), "
            f"got {images.shape} and {labels.shape}"
        )
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"images are {images.dtype}: give float32 in [0, 1], e.g. images / 255"
        )
    if len(images) and not (images.min() >= 0.0 and images.max() <= 1.0):
        raise ValueError(
            f"images must be in [0, 1], got [{images.min():g}, {images.max():g}]: "
            "normalisation belongs inside the model"
        )
    return images.astype(np.float32), labels.astype(np.int32)


def places(ids: np.ndarray | None, n: int) -> np.ndarray:
    """The places of n examples in the data that they come from, int32; 0 to n - 1.

    Raises:
      ValueError: for what are not n different places.
    """
    if ids is None:
        return np.arange(n, dtype=np.int32)
    ids = np.asarray(ids)
    if ids.shape != (n,) or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"ids must be {n} whole numbers, one per image, "
            f"got {ids.dtype} of shape {ids.shape}"
        )
    if ids.min() < 0 or ids.max() > MAX_PLACE or len(np.unique(ids)) < n:
        raise ValueError("ids must be different places in a dataset, counted from 0")
    return ids.astype(np.int32)


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Raise ValueError for a label that is no class."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels go from {labels.min()} to {labels.max()}, but there are "
            f"{num_classes} logits"
        )
