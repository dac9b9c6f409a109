"""Weights of any publisher, into a model of ours.

    model = create_model("xcit_small_12_p16_224", num_classes=1000)
    variables = load_torch(model, "xcit_s12.pth")

Every key is accounted for. What does not fit is one error, before anything is kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from robustvit.interop.adapt import fitted
from robustvit.interop.names import (
    NORMALIZE,
    TABLES,
    Names,
    entries,
)
from robustvit.interop.publishers import to_timm
from robustvit.interop.recognize import looks_like
from robustvit.interop.weight_files import SHOWN, read_weights

Variables = dict[str, Any]


def load_torch(
    model: Any,
    source: str | Path | Mapping[str, Any],
    *,
    new_head: bool = False,
    seed: int = 0,
) -> Variables:
    """Variables of `model` from torch weights; torch need not be installed.

    timm's names are read, and those of Facebook's XCiT, CaiT, DeiT, DeiT-III and
    ConvNeXt, the DINOv2 hub, OpenCLIP and OpenAI's CLIP, torchvision's ResNets,
    RobustBench's WideResNets, and the Light Recipe's files. Wrappers (`model`,
    `state_dict`, averaged weights first) and prefixes (`module.`) are removed.

    A position embedding is resized to the model's grid, a patch embedding to its patch
    size, and a first layer of 3 channels repeated for 3 N. XCiT keeps its weights at
    any strides. A normalisation in the file becomes the variables'; without one they
    take the model's fields `mean` and `std`.

    Args:
      model: a module of `robustvit.models`.
      source: .pth, .pth.tar, .pt, .th, .bin, .safetensors, or a dict of arrays.
      new_head: start from a fresh head, whatever the file has; needed where the number
        of classes differs. A model without a head (`num_classes=0`) drops the file's.
      seed: of the fresh head.

    Returns:
      {"params": ..., "batch_stats": ...} in float32, for `model.apply`.

    Raises:
      ValueError: if keys are missing, unexpected or of another shape (with the first
        of each kind, and what the file looks like), if weights are not finite, or if
        the file is damaged or asks to run code; nothing in it is ever executed.
    """
    wanted = entries(model)
    weights = read_weights(source)
    name = "the dict" if isinstance(source, Mapping) else str(source)
    for note in weights.notes:
        warnings.warn(f"{name}: {note}", stacklevel=2)
    tensors, style = to_timm(weights.tensors)
    is_head = _head_test(model)
    if new_head or not model.num_classes:
        tensors = {key: value for key, value in tensors.items() if not is_head(key)}
    if new_head and model.num_classes:
        tensors |= _fresh_head([e for e in wanted if is_head(e.key)], seed)

    leaves, misfit = _place(model, wanted, tensors)
    if misfit:
        text = f"{name} (names in the style of {style}) does not fit this model: "
        raise ValueError(text + _explained(misfit, is_head, weights.tensors))
    bad = [key for key, (_, leaf) in leaves.items() if not jnp.isfinite(leaf).all()]
    if bad:
        raise ValueError(f"{name} has NaN or infinite values in {_list(bad)}")
    return _variables(model, dict(leaves.values()), weights.normalization)


class _Misfit(NamedTuple):
    """Keys that keep weights and model apart."""

    missing: list[str]
    unexpected: list[str]
    shapes: dict[str, str]


def _place(model, wanted, tensors):
    """Leaves by torch key, each with its path; and what does not fit, or None."""
    leaves, shapes, missing = {}, {}, []
    for entry in wanted:
        if entry.key not in tensors:
            missing.append(entry.key)
            continue
        tensor = tensors.pop(entry.key)
        shaped = fitted(entry.key, tensor, entry.torch_shape, model)
        if shaped is None:
            shapes[entry.key] = f"{tensor.shape}, wanted {entry.torch_shape}"
            continue
        leaf = np.array(entry.from_torch(shaped), np.float32, order="C")
        leaves[entry.key] = entry.path, jnp.asarray(leaf)
    misfit = _Misfit(missing, list(tensors), shapes)
    return leaves, misfit if any(misfit) else None


def _explained(misfit, is_head, tensors):
    missing, unexpected, shapes = misfit
    lines = [
        f"{len(missing)} keys missing, {len(unexpected)} unexpected, {len(shapes)} of "
        "another shape"
    ]
    if missing:
        lines.append(f"  missing: {_list(missing)}")
    if unexpected:
        lines.append(f"  unexpected: {_list(unexpected)}")
    if shapes:
        lines.append(f"  shapes: {_list([f'{k} is {v}' for k, v in shapes.items()])}")
    if all(map(is_head, [*missing, *unexpected, *shapes])):
        lines.append("  only the head differs: new_head=True starts from a fresh one")
    else:
        lines.append(f"  the weights look like {looks_like(tensors)}")
    return "\n".join(lines)


def _list(items):
    rest = f", ... and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + rest


def _head_test(model):
    scope = TABLES.get(type(model), Names()).head
    return lambda key: key.rpartition(".")[0] == scope


def _fresh_head(head, seed):
    """Weight and bias from U(-1/sqrt(d), 1/sqrt(d)), torch's default."""
    shapes = {entry.key: entry.torch_shape for entry in head}
    bound = max(shapes.values(), key=len)[-1] ** -0.5
    generator = np.random.default_rng(seed)
    return {k: generator.uniform(-bound, bound, shape) for k, shape in shapes.items()}


def _variables(model, flat, normalization):
    """As a tree, with the normalisation."""
    fields = (model.mean, model.std)
    for name, values, field in zip(
        ("mean", "std"), normalization or fields, fields, strict=True
    ):
        times = len(field) // len(values)  # the same for each repeated image
        flat[(*NORMALIZE, name)] = jnp.tile(jnp.asarray(values, jnp.float32), times)
    return traverse_util.unflatten_dict(flat)
