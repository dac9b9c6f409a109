"""The analytic weights of the XCiT specification's golden forward."""

import re

import numpy as np
from flax import traverse_util

from robustvit.interop.names import entries
from robustvit.interop.weight_files import COUNTER


def _fill(key: str, index: int, shape: tuple[int, ...]) -> np.ndarray:
    t = np.cos(0.37 * np.arange(np.prod(shape)) + index).reshape(shape)
    if key.endswith("running_var"):
        return 1 + 0.5 * t
    if key.endswith("temperature"):
        return 2 + t
    if re.search(r"gamma\d$", key):
        return 0.5 + 0.25 * t
    if len(shape) == 1 and key.endswith(".weight"):
        return 1 + 0.1 * t
    if key.endswith(("running_mean", ".bias")):
        return 0.1 * t
    return t / np.sqrt(np.prod(shape[1:]))


def analytic_variables(model):
    """Variables whose values follow from their place in timm's sorted state dict."""
    table = entries(model)
    keys = {entry.key for entry in table}
    counters = {
        key.replace("running_mean", COUNTER) for key in keys if "running_mean" in key
    }
    order = {key: i for i, key in enumerate(sorted(keys | counters))}
    flat = {
        entry.path: entry.from_torch(
            _fill(entry.key, order[entry.key], entry.torch_shape)
        ).astype(np.float32)
        for entry in table
    }
    return traverse_util.unflatten_dict(flat), order


def analytic_images(size: int) -> np.ndarray:
    """Two images whose value is a cosine of their place in NCHW order."""
    n = np.arange(2 * 3 * size * size).reshape(2, 3, size, size)
    return (0.5 + 0.5 * np.cos(0.113 * n)).transpose(0, 2, 3, 1).astype(np.float32)
