"""Short names for a model and a dataset that change when they do.

fingerprints(forward, images, labels)      # {"model": "9f2c51d0a4e1b7c3", ...}
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustvit.types import Images, Labels, PyTree

LENGTH = 16
# Where a function lies in memory is no part of what it computes.
ADDRESS = re.compile(r"0x[0-9a-f]+")


def fingerprints(forward: PyTree, images: Images, labels: Labels) -> dict[str, str]:
    """Of the "model", of its "weights" alone, and of the "data".

    Args:
      forward: images and keys to logits, a jax Partial, as `forwards.keyed` makes it.
    """
    keys = jax.random.split(jax.random.key(0), 1)
    with jax.default_matmul_precision("highest"):  # as it is evaluated
        traced = jax.make_jaxpr(lambda f, x, k: f(x, k))(forward, images[:1], keys)
    leaves = jax.tree.leaves(forward)
    program = ADDRESS.sub("", str(traced))
    return {
        "model": _fingerprint(program, [*leaves, *traced.consts]),
        # Another jax writes another program; of a closure, the weights are constants.
        "weights": _fingerprint("", leaves or traced.consts),
        "data": fingerprint_of_data(images, labels),
    }


def fingerprint_of_data(images: Images, labels: Labels) -> str:
    """From every pixel and label, in order."""
    digest = hashlib.sha256(str(images.shape).encode())
    for start in range(0, len(images), 256):
        _add(digest, images[start : start + 256])
    _add(digest, labels)
    return digest.hexdigest()[:LENGTH]


def _fingerprint(text, leaves):
    digest = hashlib.sha256(text.encode())
    for leaf in leaves:
        _add(digest, leaf)
    return digest.hexdigest()[:LENGTH]


def _add(digest: Any, leaf: Any) -> None:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
