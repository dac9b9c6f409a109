"""Images and labels as an evaluation wants them, or one clear sentence why not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import jax
import numpy as np

NOTHING = "there is nothing to evaluate: no images were given"
Chunk = tuple[np.ndarray, np.ndarray]
MAX_PLACE = np.iinfo(np.int32).max


def gather(
    images: np.ndarray | Iterable[Chunk], labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """All images as float32 (n, h, w, 3) in [0, 1], and int32 labels (n,), on the host.

    Those of an iterable go to a temporary file as they come, so that a dataset need not
    fit into memory; it is gone with the array.

    Raises:
      ValueError: for what cannot be that.
    """
    if labels is not None:
        images, labels = _checked(np.asarray(images), np.asarray(labels))
    elif isinstance(images, np.ndarray | jax.Array):
        raise ValueError("labels=None needs images as an iterable of (images, labels)")
    else:
        images, labels = _streamed(images)
    if not len(labels):
        raise ValueError(NOTHING)
    return images, labels


def _streamed(chunks):
    with tempfile.TemporaryFile() as file:
        parts, shape = [], ()
        for x, y in chunks:
            x, y = _checked(np.asarray(x), np.asarray(y))
            shape = shape or x.shape[1:]
            if x.shape[1:] != shape:
                raise ValueError(f"images of {shape} are followed by some of {x.shape}")
            file.write(x.tobytes())
            parts.append(y)
        if not sum(map(len, parts)):
            raise ValueError(NOTHING)
        file.flush()
        labels = np.concatenate(parts)
        return np.memmap(file, np.float32, shape=(len(labels), *shape)), labels


def another_like(images: np.ndarray) -> np.ndarray:
    """A copy that can be written to: in memory, or in a file if `images` are in one."""
    if not isinstance(images, np.memmap):
        return images.copy()
    with tempfile.TemporaryFile() as file:
        copy = np.memmap(file, images.dtype, "w+", shape=images.shape)
    copy[:] = images
    return copy


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
