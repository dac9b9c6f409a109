"""What is evaluated: any JAX function, brought to one form.

forward = logits_fn(model, variables)                   # a model of this library
forward = lambda images: my_net(params, images)         # anyone's
forward = Randomized(lambda images, key: ...)           # a randomised defence
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from robustvit.attacks.slots import SlotAttack
from robustvit.types import Forward

Partial = jax.tree_util.Partial


@dataclass(frozen=True)
class Randomized:
    """A forward that draws: (images, key) to logits.

    It is called on one image at a time (vectorised), with a key for that image, so that
    what it draws does not depend on the rest of a batch.
    """

    draw: Callable[..., Any]

    def __call__(self, images: Any, keys: Any) -> Any:
        """Images (b, h, w, 3) and keys (b,) to logits (b, k)."""
        return jax.vmap(lambda x, key: self.draw(x[None], key)[0])(images, keys)


def logits_fn(model: Any, variables: Any, *, precise: bool = True) -> Forward:
    """The model as a function of images alone, in evaluation mode.

    Args:
      model: a module of `robustvit.models`.
      variables: {"params": ..., "batch_stats": ...}.
      precise: compute in float32 whatever the model was trained in, as reported
        robustness should be.
    """
    if precise and hasattr(model, "dtype"):
        model = model.clone(dtype=jnp.float32)
    # A Partial carries the weights as arguments; a closure would compile them in.
    return Partial(partial(_logits, model), variables)


def keyed(forward: Forward | Randomized) -> Partial:
    """(images, keys) to logits, as a pytree that holds the weights it can."""
    if isinstance(forward, Partial):
        return Partial(_without_keys, forward)
    # Fresh functions, because jit compares callables by hash, not by what they hold.
    if isinstance(forward, Randomized):
        return Partial(lambda images, keys: forward(images, keys))
    return Partial(lambda images, keys: forward(images))


def check_gradients(
    forward: Partial, images: Any, attacks: Mapping[str, SlotAttack], num_classes: int
) -> None:
    """Raise ValueError if an attack needs gradients that jax cannot take."""
    climbing = [k for k, v in attacks.items() if v.passes(num_classes)[1]]
    if not climbing:
        return
    keys = jax.random.split(jax.random.key(0), len(images))
    try:
        jax.eval_shape(jax.grad(lambda x: forward(x, keys).sum()), images)
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ValueError(
            f"jax cannot differentiate this forward ({reason}), and "
            f"{', '.join(climbing)} need its gradients: attack it without, by "
            'autoattack(["square"])'
        ) from error


def calls_python(forward: Partial, images: Any) -> bool:
    """Whether the forward leaves the device for a function of the host's."""
    keys = jax.random.split(jax.random.key(0), len(images))
    program = jax.make_jaxpr(lambda f, x, k: f(x, k))(forward, images, keys)
    text = str(program)
    return "pure_callback[" in text or "io_callback[" in text


def _without_keys(forward, images, keys):
    return forward(images)


def _logits(model, variables, images):
    return model.apply(variables, images, train=False).logits
