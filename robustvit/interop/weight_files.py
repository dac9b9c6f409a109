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
WRAPPERS = (
    "state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model",
    "net", "teacher",
)  # fmt: skip
# What wrapping a module puts before its keys.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "0.", "1.")
# Mean and standard deviation of an input normalisation inside the model.
NORMALIZATIONS = (
    ("normalize.mean", "normalize.std"),
    ("normalizer.mean", "normalizer.std"),
    ("0.mean", "0.std"),  # nn.Sequential(normalize, model)
    ("mean", "std"),
)
COUNTER = "num_batches_tracked"
COUNTERS = (COUNTER, "n_averaged")  # the second: torch's AveragedModel
FLOATS = tuple(
    np.dtype(t) for t in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
)
SHOWN = 8  # names in an error


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
    tree, where = _read(source)
    notes: list[str] = []
    tensors = _unwrap(tree, where, notes)
    tensors = {k: v for k, v in tensors.items() if not k.endswith(COUNTERS)}
    normalization = None
    while True:
        found, tensors = _take_normalization(tensors, where)
        normalization = found or normalization
        prefix = _common_prefix(tensors)
        if not prefix:
            break
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return Weights(tensors, normalization, (*notes, *_dtype_notes(tensors, where)))


def _read(source):
    """What was saved, and what to call it in messages."""
    if isinstance(source, Mapping):
        if isinstance(source.get("params"), Mapping):
            raise ValueError("these are variables of ours already, not torch weights")
        return dict(source), "the dict"
    if not isinstance(source, str | Path):
        raise ValueError(
            f"the weights are a {type(source).__name__}; wanted a path, or a dict of "
            "arrays"
        )
    path = Path(source)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; wanted a weight file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _read_safetensors(path), str(path)
    if suffix in TORCH_SUFFIXES:
        return read_torch_file(path), str(path)
    raise ValueError(
        f"{path} is of no known kind: wanted .safetensors or one of "
        f"{' '.join(TORCH_SUFFIXES)}"
    )


def _read_safetensors(path):
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {}
            for key in file.keys():  # noqa: SIM118
                dtype = file.get_slice(key).get_dtype()
                if dtype.startswith("F8"):
                    raise ValueError(f"{path}: {key} is {dtype}; wanted float32")
                tensors[key] = file.get_tensor(key)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is cut off or damaged ({error})") from None
    if {"mean", "std"} <= metadata.keys():  # as `save_torch` writes them
        for name in ("mean", "std"):
            try:
                values = [float(v) for v in metadata[name].split()]
            except ValueError:
                raise ValueError(
                    f"{path}: {name} in its metadata is {metadata[name]!r}, not numbers"
                ) from None
            tensors[f"normalize.{name}"] = np.array(values, np.float32)
    return tensors


def _unwrap(tree, where, notes):
    """The dict of arrays somewhere inside what was saved."""
    if not isinstance(tree, dict):
        raise ValueError(f"{where} holds a {type(tree).__name__}, not named weights")
    inside = [key for key in WRAPPERS if _holds_arrays(tree.get(key))]
    if inside:
        if len(inside) > 1:
            notes.append(f"took {inside[0]!r} and left {', '.join(inside[1:])}")
        return _unwrap(tree[inside[0]], where, notes)
    arrays = {key: value for key, value in tree.items() if _is_array(value)}
    others = {key: value for key, value in tree.items() if _holds_arrays(value)}
    if not arrays or others:
        keys = ", ".join(str(key)[:80] for key in [*others, *tree][:SHOWN]) or "nothing"
        more = "beside the weights" if arrays else "instead of weights"
        raise ValueError(
            f"{where} has {keys} {more}; wanted named tensors, alone or under one of "
            f"{', '.join(WRAPPERS)}"
        )
    return {str(key): _to_numpy(value) for key, value in arrays.items()}


def _holds_arrays(value):
    """A dict with arrays in it, however deep."""
    return isinstance(value, dict) and any(
        _is_array(item) or _holds_arrays(item) for item in value.values()
    )


def _to_numpy(value):
    if hasattr(value, "detach"):  # torch's, which numpy cannot read in every state
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    return np.asarray(value)


def _is_array(value):
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _take_normalization(tensors, where):
    for names in NORMALIZATIONS:
        if not all(name in tensors for name in names):
            continue
        mean, std = (np.asarray(tensors[n], np.float32).reshape(-1) for n in names)
        if mean.size % 3:
            continue
        good = np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
        if mean.size != std.size or not good:
            raise ValueError(
                f"{where} normalises with mean {mean} and std {std}; wanted a finite "
                "mean and a positive std for each channel"
            )
        rest = {key: value for key, value in tensors.items() if key not in names}
        return (mean, std), rest
    return None, tensors


def _common_prefix(tensors):
    for prefix in PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            return prefix
    return ""


def _dtype_notes(tensors, where):
    odd = {k: str(v.dtype) for k, v in tensors.items() if v.dtype not in FLOATS}
    if odd:
        key, dtype = next(iter(odd.items()))
        raise ValueError(f"{where}: {key} is {dtype}; wanted floating-point weights")
    others = {str(v.dtype) for v in tensors.values()} - {"float32"}
    return [f"the weights are {dtype}: made float32" for dtype in sorted(others)]
