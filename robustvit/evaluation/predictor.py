"""Logits of any number of images, in full batches of one size.

predict = Predictor(keyed(forward), mesh, key, batch_size=128)
logits = predict(images, ids)                       # numpy in, numpy out
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from robustvit import losses
from robustvit.parallel import put_batch
from robustvit.types import PyTree


class Predictor:
    """A compiled forward; `ids` decide what a randomised one draws for an image."""

    def __init__(self, forward: PyTree, mesh: Any, key: jax.Array, batch_size: int):
        self.batch_size = -(-batch_size // mesh.size) * mesh.size
        half = max(self.batch_size // 2 // mesh.size, 1) * mesh.size
        self.other_batch_size = half if half != self.batch_size else 2 * half
        self.small_batch_size = max(self.batch_size // 8 // mesh.size, 1) * mesh.size
        self._forward, self._mesh, self._key = forward, mesh, key
        self._program = jax.jit(_logits)

    def __call__(
        self, images: np.ndarray, ids: np.ndarray, *, batch_size: int | None = None
    ) -> np.ndarray:
        """Images (n, h, w, 3) and their places in the data (n,) to logits (n, k).

        Raises:
          ValueError: for logits that are not finite.
        """
        size = batch_size or self.batch_size
        logits = self._batches(self._program, size, images, ids)
        if not np.isfinite(logits).all():
            raise ValueError("the model's logits are not finite on some images")
        return logits

    def gradients(
        self, images: np.ndarray, ids: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        """Of the margin (best wrong logit minus the true one), (n, h, w, 3)."""
        program = jax.jit(_gradients)
        return self._batches(program, self.batch_size, images, ids, labels)

    def _batches(self, program, size, *arrays):
        parts = [
            self._batch(program, size, [a[i : i + size] for a in arrays])
            for i in range(0, len(arrays[0]), size)
        ]
        return np.concatenate(parts)

    def _batch(self, program, size, arrays):
        """Rows past the given ones repeat the first."""
        images, *integers = arrays
        rows = len(images)
        fill = np.zeros(size - rows, int)
        columns = [images, *(a.astype(np.int32) for a in integers)]
        full = [np.concatenate([a, a[fill]]) for a in columns]
        on_devices = put_batch(full, self._mesh)
        return np.array(program(self._forward, self._key, *on_devices))[:rows]


def _logits(forward, key, images, ids):
    return forward(images, jax.vmap(jax.random.fold_in, (None, 0))(key, ids))


def _gradients(forward, key, images, ids, labels):
    def summed(images):
        return losses.margin(_logits(forward, key, images, ids), labels).sum()

    return jax.grad(summed)(images)
