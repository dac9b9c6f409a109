"""timm's names and layouts for XCiT, and the analytic weights of the golden forward."""

import re

import jax
import numpy as np

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_key(path: str) -> str:
    """`blocks_3/attn/qkv/kernel` -> `blocks.3.attn.qkv.weight`."""
    *scopes, leaf = path.split("/")
    leaf = LEAVES.get(leaf, leaf)
    scope = ".".join(scopes)
    scope = re.sub(r"blocks_(\d+)", r"blocks.\1", scope)
    scope = scope.replace("pos_embed.proj", "pos_embed.token_projection")
    stem = re.fullmatch(r"patch_embed\.(conv|bn)(\d)", scope)
    if stem:
        scope = f"patch_embed.proj.{2 * int(stem[2])}.{int(stem[1] == 'bn')}"
    return f"{scope}.{leaf}" if scope else leaf


def to_torch_layout(key: str, array: np.ndarray) -> np.ndarray:
    """Our layout to torch's: OIHW convolutions, (out, in) linear maps."""
    if key == "pos_embed.token_projection.weight":
        return array.T[:, :, None, None]
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if array.ndim == 2 else array


def from_torch_layout(key: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `to_torch_layout`."""
    if key == "pos_embed.token_projection.weight":
        return array[:, :, 0, 0].T
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array


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


def analytic_variables(abstract):
    """Variables whose values follow from their place in timm's sorted state dict."""
    stats = {k: v for k, v in abstract["batch_stats"].items() if k != "normalize"}
    abstract = {**abstract, "batch_stats": stats}
    flat, tree = jax.tree_util.tree_flatten_with_path(abstract)
    keys = [torch_key("/".join(k.key for k in path[1:])) for path, _ in flat]
    counters = {
        k.replace("running_mean", "num_batches_tracked")
        for k in keys
        if k.endswith("running_mean")
    }
    order = {key: i for i, key in enumerate(sorted({*keys, *counters}))}
    leaves = []
    for key, (_, leaf) in zip(keys, flat, strict=True):
        shape = to_torch_layout(key, np.empty(leaf.shape)).shape
        value = from_torch_layout(key, _fill(key, order[key], shape))
        assert value.shape == leaf.shape, key
        leaves.append(value.astype(np.float32))
    return jax.tree_util.tree_unflatten(tree, leaves), order


def analytic_images(size: int) -> np.ndarray:
    """Two images whose value is a cosine of their place in NCHW order."""
    n = np.arange(2 * 3 * size * size).reshape(2, 3, size, size)
    return (0.5 + 0.5 * np.cos(0.113 * n)).transpose(0, 2, 3, 1).astype(np.float32)
