"""Short names for a model and a dataset that change when they do.

fingerprint_of_model(forward, images[:1], keys[:1])      # "9f2c51d0a4e1b7c3"
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustvit.types import Images, Keys, Labels, PyTree

LENGTH = 16
# Where a function lies in memory is no part of what it computes.
ADDRESS = re.compile(r"0x[0-9a-f]+")


def fingerprint_of_model(forward: PyTree, images: Images, keys: Keys) -> str:
    """From the traced program and every number in it; `forward` is a jax Partial."""
    traced = jax.make_jaxpr(lambda f, x, k: f(x, k))(forward, images, keys)
    digest = hashlib.sha256(ADDRESS.sub("", str(traced)).encode())
    for leaf in [*jax.tree.leaves(forward), *traced.consts]:
        _add(digest, leaf)
    return digest.hexdigest()[:LENGTH]


def fingerprint_of_data(images: Images, labels: Labels) -> str:
    """From every pixel and label, in order."""
    digest = hashlib.sha256(str(images.shape).encode())
    for start in range(0, len(images), 256):
        _add(digest, images[start : start + 256])
    _add(digest, labels)
    return digest.hexdigest()[:LENGTH]


def _add(digest: Any, leaf: Any) -> None:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
