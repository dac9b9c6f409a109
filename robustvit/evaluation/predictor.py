"""Logits of any number of images, in full batches of one size.

predict = Predictor(keyed(forward), mesh, key, batch_size=128)
logits = predict(images, ids)                       # numpy in, numpy out
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

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
        parts = [
            self._batch(images[i : i + size], ids[i : i + size], size)
            for i in range(0, len(images), size)
        ]
        logits = np.concatenate(parts)
        if not np.isfinite(logits).all():
            raise ValueError("the model's logits are not finite on some images")
        return logits

    def _batch(self, images, ids, size):
        """Rows past the given ones repeat the first."""
        rows = len(images)
        fill = np.zeros(size - rows, int)
        full = [np.concatenate([a, a[fill]]) for a in (images, ids.astype(np.int32))]
        on_devices = put_batch(full, self._mesh)
        return np.array(self._program(self._forward, self._key, *on_devices))[:rows]


def _logits(forward, key, images, ids):
    return forward(images, jax.vmap(jax.random.fold_in, (None, 0))(key, ids))
