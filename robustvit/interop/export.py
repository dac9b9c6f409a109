"""Weights of ours, as torch and timm read them.

save_torch(model, variables, "robust.safetensors")
timm.create_model("xcit_small_12_p16_224").load_state_dict(load_file(...), strict=True)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from robustvit.interop.names import NORMALIZE, entries
from robustvit.interop.torch_writer import write_torch_file
from robustvit.interop.weight_files import COUNTER, SHOWN


def state_dict(model: Any, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """torch's state dict of a model: timm's names and layouts, or the publisher's own.

    float32, and the int64 counters of BatchNorm. The input normalisation is not in it:
    timm has that outside the model.

    Raises:
      ValueError: if the variables are not those of the model.
    """
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ValueError(
            f"the variables are a {type(variables).__name__} without 'params'; wanted "
            "what model.init or load_torch returns"
        )
    flat: dict[Any, Any] = traverse_util.flatten_dict(dict(variables))  # pyright: ignore[reportAssignmentType]
    result = {}
    for entry in entries(model):
        leaf = flat.pop(entry.path, None)
        if leaf is None or np.shape(leaf) != entry.shape:
            got = "nothing" if leaf is None else np.shape(leaf)
            raise ValueError(
                f"the variables are not this {type(model).__name__}'s: "
                f"{'/'.join(entry.path)} is {got}, wanted {entry.shape}"
            )
        leaf = np.asarray(leaf, np.float32)
        if not np.isfinite(leaf).all():
            raise ValueError(f"{'/'.join(entry.path)} has NaN or infinite values")
        result[entry.key] = entry.to_torch(leaf)
        if entry.key.endswith("running_var"):
            counter = entry.key.removesuffix("running_var") + COUNTER
            result[counter] = np.zeros((), np.int64)
    unused = ["/".join(path) for path in flat if path[:2] != NORMALIZE]
    if unused:
        raise ValueError(
            f"the variables are not this {type(model).__name__}'s: it has no "
            f"{', '.join(unused[:SHOWN])}"
        )
    return result


def save_torch(model: Any, variables: Mapping[str, Any], path: str | Path) -> None:
    """Write a file that torch and timm load with `strict=True`; torch is not needed.

    Args:
      model: a module of `robustvit.models`.
      variables: {"params": ..., "batch_stats": ...}.
      path: ending in .safetensors, which also carries the input normalisation, or in
        .pth or .pt.

    Raises:
      ValueError: for another ending, or variables of another model; no file is left.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ValueError(f"{path} must end in one of {', '.join(_WRITERS)}")
    if path.is_dir() or not path.parent.is_dir():
        wrong = path if path.is_dir() else path.parent
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"cannot write {path}: {wrong} {what}")
    tensors = state_dict(model, variables)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".weights-") as folder:
        draft = Path(folder) / path.name
        write(draft, tensors, normalization(model, variables))
        os.replace(draft, path)


def normalization(model: Any, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Mean and standard deviation of the input that these weights expect."""
    stats = variables.get("batch_stats", {}).get("normalize", {})
    return {
        name: np.asarray(stats.get(name, getattr(model, name)), np.float32)
        for name in ("mean", "std")
    }


def _write_safetensors(path, tensors, statistics):
    contiguous = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    texts = {
        name: " ".join(repr(float(value)) for value in values)
        for name, values in statistics.items()
    }
    save_file(contiguous, path, metadata={"format": "pt", **texts})


def _write_pth(path, tensors, _):
    write_torch_file(path, tensors)


_WRITERS: dict[str, Callable[..., None]] = {
    ".safetensors": _write_safetensors,
    ".pth": _write_pth,
    ".pt": _write_pth,
}
