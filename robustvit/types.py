"""The nouns that every room shares: arrays, outputs, batches, state. No logic.

Images are always float32 in [0, 1], NHWC; normalisation lives inside the model.

    outputs = model.apply(variables, images)      # Outputs
    state = state.replace(step=state.step + 1)    # TrainState
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key

PyTree = Any
Device = Any  # a jax.Device, which is a variable to type checkers
AnyArray = Array | np.ndarray
Images = Float[AnyArray, "b h w 3"]
Inputs = Float[AnyArray, "b h w c"]  # of a model: c is 3, or 3 N of N resolutions
Labels = Int[AnyArray, "b"]
Logits = Float[AnyArray, "b k"]
Targets = Float[AnyArray, "b k"]  # a distribution over the classes for each example
PerExample = Float[AnyArray, "b"]
Keys = Key[Array, "b"]
Tokens = Float[AnyArray, "b n d"]

# {"image": (b, h, w, 3), "label": (b,), "index": (b,), "mask": (b,)}; `index` is the
# example's position in its dataset and seeds whatever is random about it. The image
# is uint8 until the train step divides by 255. Some batches have more: "view" (b,), the
# number of a view where an image has several, 0 for the one that is not augmented; and
# "target" (b, k), soft targets, which then count in place of the label.
Batch = dict[str, Any]
Metrics = dict[str, Any]
Augment = Callable[[Images, Keys], Images]  # on the device, per example
Mix = Callable[[Images, Labels, Any], tuple[Images, Targets]]  # of the batch, one key


@struct.dataclass
class Outputs:
    """What every model returns; XLA removes what nobody reads."""

    logits: Any  # (b, k), float32
    features: Any  # (b, n, d) tokens or (b, h, w, d) maps
    hidden: tuple[Any, ...]  # one entry per block, in order


@struct.dataclass
class TrainState:
    """Everything that training changes, and nothing else: no functions in here."""

    step: Any  # (), int32: updates done
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    ema: PyTree  # {"params", "batch_stats"} averaged over steps, or {} when off
    key: Any  # never changes: each step folds its number into it


@struct.dataclass
class Perturbed:
    """Adversarial images, and the running statistics that making them left behind."""

    images: Any
    batch_stats: PyTree


@runtime_checkable
class LossFn(Protocol):
    """Per-example loss, to be maximised by an attack."""

    def __call__(self, x: Images) -> PerExample:
        """Images (b, h, w, 3) in [0, 1] to losses (b,)."""
        ...


@runtime_checkable
class Forward(Protocol):
    """Any JAX function from images in [0, 1] to logits."""

    def __call__(self, images: Images) -> Logits:
        """Images (b, h, w, 3) in [0, 1] to logits (b, k)."""
        ...


class Objective(NamedTuple):
    """A training method, as two pure functions (after optax's style).

    Attributes:
      perturb: (state, batch, threat, key) -> the images that `loss` is taken on
        (or `Perturbed`, when the attack moves the running statistics too).
      loss: (params, state, batch, x_adv, key) -> (scalar, (batch_stats, metrics)).
      forwards: forward passes of the model that one step cannot do without, a
        backward pass counted as one more (inputs only) or two more (with parameters);
        the floor that MFU and the benchmarks are measured against.
    """

    perturb: Callable[..., Any]
    loss: Callable[..., tuple[jax.Array, tuple[PyTree, Metrics]]]
    forwards: int = 3
