"""A weight file of any kind, to a flat dict of arrays: the network's own, and no more.

weights = read_weights("xcit_s12.pth.tar")
weights.tensors["cls_token"]; weights.normalization; weights.notes
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from robustvit.interop.torch_files import read_torch_file

TORCH_SUFFIXES = (".pth", ".pt", ".th", ".tar", ".bin", ".ckpt")
# Where training scripts keep the network; averaged weights before raw ones, as timm.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "teacher")
# What wrapping a module puts before its keys.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "1.")
# Mean and standard deviation of an input normalisation inside the model.
NORMALIZATIONS = (
    ("normalize.mean", "normalize.std"),
    ("normalizer.mean", "normalizer.std"),
    ("0.mean", "0.std"),  # nn.Sequential(normalize, model)
    ("mean", "std"),
)
COUNTER = "num_batches_tracked"
HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


class Weights(NamedTuple):
    """What a file holds.

    Attributes:
      tensors: by the publisher's own names, wrappers and prefixes removed.
      normalization: (mean, std) of the input per channel, if the file has one.
      notes: what a person should know about how it was read.
    """

    tensors: dict[str, np.ndarray]
    normalization: tuple[np.ndarray, np.ndarray] | None
    notes: tuple[str, ...]


def read_weights(source: str | Path | Mapping[str, Any]) -> Weights:
    """Read .pth, .pth.tar, .pt, .th, .bin, .safetensors, or a dict of arrays.

    Raises:
      ValueError: for a file that cannot be read safely, or holds no weights.
      FileNotFoundError: if there is none.
    """
    notes: list[str] = []
    if isinstance(source, Mapping):
        tree, where = dict(source), "the dict"
    else:
        path, where = Path(source), str(source)
        if not path.is_file():
            raise FileNotFoundError(f"there is no weight file {path}")
        if path.suffix == ".safetensors":
            tree = _read_safetensors(path)
        elif path.suffix in TORCH_SUFFIXES:
            tree = read_torch_file(path)
        else:
            raise ValueError(
                f"{path} is of no known kind: wanted .safetensors or one of "
                f"{' '.join(TORCH_SUFFIXES)}"
            )
    tensors = _unwrap(tree, where, notes)
    tensors = {k: v for k, v in tensors.items() if not k.endswith(COUNTER)}
    normalization = None
    while True:
        found, tensors = _take_normalization(tensors)
        normalization = found or normalization
        prefix = _common_prefix(tensors)
        if not prefix:
            break
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return Weights(tensors, normalization, tuple(notes + _dtype_notes(tensors)))


def _read_safetensors(path):
    try:
        with safetensors.safe_open(path, framework="np") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            for name, text in (file.metadata() or {}).items():
                if name in ("mean", "std"):  # as `save_torch` writes it
                    values = np.array([float(v) for v in text.split()], np.float32)
                    tensors[f"normalize.{name}"] = values
            return tensors
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is cut off or damaged ({error})") from None


def _unwrap(tree, where, notes):
    """The dict of arrays somewhere inside what was saved."""
    if not isinstance(tree, dict):
        raise ValueError(f"{where} holds a {type(tree).__name__}, not named weights")
    arrays = {key: value for key, value in tree.items() if _is_array(value)}
    inside = [key for key in WRAPPERS if isinstance(tree.get(key), dict) and tree[key]]
    if inside and len(arrays) < len(tree):
        if len(inside) > 1:
            notes.append(f"took {inside[0]!r} and left {', '.join(inside[1:])}")
        return _unwrap(tree[inside[0]], where, notes)
    if not arrays:
        keys = ", ".join(list(map(str, tree))[:8]) or "nothing"
        raise ValueError(f"{where} has no weights in it; it has {keys}")
    return {str(key): _to_numpy(value) for key, value in arrays.items()}


def _to_numpy(value):
    if hasattr(value, "detach"):  # torch's, which numpy cannot read in every state
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    return np.asarray(value)


def _is_array(value):
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _take_normalization(tensors):
    for mean, std in NORMALIZATIONS:
        if mean in tensors and std in tensors and tensors[mean].size == 3:
            rest = {k: v for k, v in tensors.items() if k not in (mean, std)}
            flat = [np.asarray(tensors[k], np.float32).reshape(-1) for k in (mean, std)]
            return (flat[0], flat[1]), rest
    return None, tensors


def _common_prefix(tensors):
    for prefix in PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            return prefix
    return ""


def _dtype_notes(tensors):
    halves = {str(v.dtype) for v in tensors.values() if v.dtype in HALVES}
    if not halves:
        return []
    return [f"the weights are {' and '.join(sorted(halves))}: made float32"]
