"""Which torch tensor each of our variables is: names and layouts, as tables.

Modules carry the names of the reference's torch modules, an index behind an underscore:
`blocks_3/attn/qkv/kernel` is `blocks.3.attn.qkv.weight`. What differs stands in TABLES.
The torch side is what timm writes, and the publishers' own repositories for families
that timm does not have.

    for entry in entries(model):
        array = entry.to_torch(leaf)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from robustvit.models import (
    CifarResNet,
    ConvNeXt,
    PoolFormer,
    PreActResNet,
    ResNet,
    Swin,
    WideResNet,
    XCiT,
)

# Names of leaves; all others are the same on both sides.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
NORMALIZE = ("batch_stats", "normalize")  # ours alone: torch keeps it out of the model


class Names(NamedTuple):
    """What a family of models has besides the general rule.

    Attributes:
      scopes: our torch-like scope, to the one that the reference has.
      pointwise: torch scopes of 1x1 convolutions that are linear maps here.
      head: torch scope of the classifier.
    """

    scopes: Mapping[str, str] = MappingProxyType({})
    pointwise: frozenset[str] = frozenset()
    head: str = "head"


_XCIT_STEM = {
    f"patch_embed.{layer}{i}": f"patch_embed.proj.{2 * i}.{j}"
    for i in range(4)
    for j, layer in enumerate(("conv", "bn"))
}

TABLES: dict[type, Names] = {
    XCiT: Names(
        scopes={**_XCIT_STEM, "pos_embed.proj": "pos_embed.token_projection"},
        pointwise=frozenset({"pos_embed.token_projection"}),
    ),
    ResNet: Names(head="fc"),
    WideResNet: Names(head="fc"),
    PreActResNet: Names(head="linear"),
    CifarResNet: Names(head="linear"),
    ConvNeXt: Names(head="head.fc"),
    PoolFormer: Names(head="head.fc"),
    Swin: Names(head="head.fc"),
}


class Entry(NamedTuple):
    """One variable: its path here, its key there, and the way between them."""

    path: tuple[str, ...]  # ("params", "blocks_0", ..., "kernel")
    key: str
    shape: tuple[int, ...]  # here
    pointwise: bool

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Shape of the torch tensor."""
        return self.to_torch(np.empty(self.shape, np.bool_)).shape

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """HWIO to OIHW, (in, out) to (out, in); everything else as it is."""
        if self.path[-1] != "kernel":
            return array
        if array.ndim == 4:
            return array.transpose(3, 2, 0, 1)
        return array.T[:, :, None, None] if self.pointwise else array.T

    def from_torch(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_torch`."""
        if self.path[-1] != "kernel":
            return array
        if self.pointwise:
            array = array[:, :, 0, 0]
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def entries(model: Any) -> tuple[Entry, ...]:
    """Every variable of the model that torch has, in the model's own order."""
    names = TABLES.get(type(model), Names())
    leaves: dict[tuple[str, ...], Any]
    leaves = traverse_util.flatten_dict(abstract_variables(model))  # pyright: ignore[reportAssignmentType]
    result = []
    for path, leaf in leaves.items():
        if path[:2] == NORMALIZE:
            continue
        scope = _scope(path[1:-1], names.scopes)
        name = LEAVES.get(path[-1], path[-1])
        key = f"{scope}.{name}" if scope else name
        result.append(Entry(path, key, leaf.shape, scope in names.pointwise))
    return tuple(result)


def abstract_variables(model: Any) -> dict[str, Any]:
    """Shapes and dtypes of the variables, without making them."""
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"the model is a {type(model).__name__}, {str(model)[:60]!r}; wanted what "
            "create_model(name) returns"
        )
    size = getattr(model, "image_size", 32)  # any will do where none is fixed
    images = jax.ShapeDtypeStruct((1, size, size, len(model.mean)), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def _scope(parts, renames):
    dotted = ".".join(re.sub(r"_(\d+)$", r".\1", part) for part in parts)
    return renames.get(dotted, dotted)
