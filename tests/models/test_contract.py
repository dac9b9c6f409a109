"""What every name in MODELS promises, checked on a small model of the same kind.

Width, depth and images shrink; everything that makes one variant another stays. Names
that then are the same model are checked once.
"""

import collections
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chex import assert_tree_all_finite

from robustvit.attacks import PGD
from robustvit.models import (
    MODELS,
    CaiT,
    CifarResNet,
    ConvNeXt,
    PoolFormer,
    PreActResNet,
    ResNet,
    Swin,
    ViT,
    WideResNet,
    XCiT,
)
from robustvit.objectives import OBJECTIVES
from robustvit.threat import ThreatModel
from robustvit.training.step import init_state, make_train_step

TRANSFORMER = {"dim": 24, "depth": 1, "num_heads": 2}
MAPS = {"widths": (8, 16)}
# Per family: what becomes small, and how many blocks there are then.
SMALL = {
    XCiT: ({**TRANSFORMER, "eta": 1.0}, 1),
    ViT: (TRANSFORMER, 1),
    CaiT: ({**TRANSFORMER, "layer_scale": 1.0}, 1),
    ResNet: ({**MAPS, "layers": (1, 1)}, 2),
    WideResNet: ({"depth": 10, "width": 1}, 3),
    PreActResNet: ({**MAPS, "layers": (1, 1)}, 2),
    CifarResNet: ({"depth": 8}, 3),
    ConvNeXt: ({**MAPS, "depths": (1, 1)}, 2),
    PoolFormer: ({**MAPS, "depths": (1, 1)}, 2),
    Swin: (
        {"patch_size": 2, "window": 2, "dim": 8, "depths": (2,), "num_heads": (2,)},
        2,
    ),
}
NUM_CLASSES = 5
# The compiler need not try hard for one step.
QUICKLY = {"compiler_options": {"xla_backend_optimization_level": 0}}
# What a parameter may be without any gradient, because its function does not see it:
# a softmax ignores what is added to all its inputs, "pooled minus itself" a constant.
UNSEEN = ("['k']['bias']", "['proj_l']['bias']")
UNSEEN_BY = {PoolFormer: (*UNSEEN, "['norm1']['bias']")}


def shrunk(name):
    """The small model of a name: the same for all that differ in size alone."""
    model = MODELS[name]()
    fields = {**SMALL[type(model)][0], "mean": (0.5,) * 3, "std": (0.5,) * 3}
    if isinstance(model, ViT | CaiT):
        fields |= {"patch_size": 8, "image_size": 16}
    if isinstance(model, ViT):
        fields["position_resize"] = "antialias"
    if isinstance(model, Swin):
        fields["image_size"] = 8
    if hasattr(model, "strides"):  # how many convolutions, not where they stride
        fields["strides"] = (2,) * len(model.strides)
    if getattr(model, "layer_scale", None):
        fields["layer_scale"] = 0.5
    if getattr(model, "stem_widths", ()):
        # As many as there are; of a ViT, as patches of 8 need.
        number = 3 if isinstance(model, ViT) else len(model.stem_widths)
        fields["stem_widths"] = (4,) * number
    return model.clone(num_classes=NUM_CLASSES, **fields)


KINDS = collections.defaultdict(list)
for _name in MODELS:
    KINDS[shrunk(_name)].append(_name)

every_kind = pytest.mark.parametrize(
    "model", KINDS, ids=[names[0] for names in KINDS.values()]
)


def batch_for(model, size=4):
    side = getattr(model, "image_size", 32)
    rng = np.random.RandomState(0)
    return {
        "image": rng.randint(0, 256, (size, side, side, 3)).astype(np.uint8),
        "label": np.arange(size, dtype=np.int32) % NUM_CLASSES,
        "index": np.arange(size, dtype=np.int32),
        "mask": np.ones(size, bool),
    }


@cache
def trained(model):
    """State before and after one adversarial step, and its metrics."""
    objective = OBJECTIVES["adversarial"](model, PGD(1, 4 / 255))
    tx = optax.sgd(0.1)
    side = getattr(model, "image_size", 32)
    init = jax.jit(partial(init_state, model, tx, image_size=side), **QUICKLY)
    start = init(jax.random.key(0))
    # Away from zero initialisations, behind which nothing moves at first.
    rng = np.random.RandomState(1)
    params = jax.tree.map(
        lambda p: p + 0.1 * rng.standard_normal(p.shape).astype(np.float32),
        jax.device_get(start.params),
    )
    start = start.replace(params=params)
    step = jax.jit(make_train_step(objective, tx), **QUICKLY)
    end, metrics = step(start, batch_for(model), ThreatModel("linf", 4 / 255))
    return start, end.replace(key=()), jax.device_get(metrics)


@every_kind
def test_outputs_keep_the_contract(model):
    images = batch_for(model)["image"].astype(np.float32)
    init = partial(model.init_with_output, jax.random.key(0))
    outputs, variables = jax.eval_shape(init, images)
    assert outputs.logits.shape == (4, NUM_CLASSES)
    assert outputs.logits.dtype == outputs.features.dtype == jnp.float32
    assert outputs.features.ndim in (3, 4)
    assert len(outputs.hidden) == SMALL[type(model)][1]
    assert all(h.shape[0] == 4 for h in outputs.hidden)

    headless = partial(model.clone(num_classes=0).init_with_output, jax.random.key(0))
    bare, rest = jax.eval_shape(headless, images)
    assert bare.logits.shape == (4, outputs.features.shape[-1])
    count = lambda v: sum(leaf.size for leaf in jax.tree.leaves(v["params"]))  # noqa: E731
    head = (outputs.features.shape[-1] + 1) * NUM_CLASSES
    assert count(variables) - count(rest) == head


@every_kind
def test_one_adversarial_step_moves_every_parameter(model):
    start, end, metrics = trained(model)
    end = jax.device_get(end)
    assert_tree_all_finite((end.params, end.batch_stats, metrics))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), start.params, end.params)
    names = {jax.tree_util.keystr(p): m for p, m in jax.tree.leaves_with_path(moved)}
    still = {name for name, moved in names.items() if not moved}
    unseen = UNSEEN_BY.get(type(model), UNSEEN)
    assert {name for name in still if not name.endswith(unseen)} == set()
    normalize = end.batch_stats["normalize"]
    np.testing.assert_array_equal(normalize["mean"], np.float32(0.5))


@pytest.mark.parametrize("family", SMALL)
def test_bfloat16_is_close(family):
    model = next(model for model in KINDS if type(model) is family)
    start, _, _ = trained(model)
    variables = {"params": start.params, "batch_stats": start.batch_stats}

    @partial(jax.jit, **QUICKLY)
    def forward(variables, images):
        rough = model.clone(dtype=jnp.bfloat16).apply(variables, images)
        return model.apply(variables, images), rough

    outputs, rough = forward(variables, batch_for(model)["image"] / np.float32(255))
    assert rough.logits.dtype == rough.features.dtype == jnp.float32
    difference = jnp.linalg.norm(rough.logits - outputs.logits)
    # bfloat16 keeps 8 bits: 0.4 % per rounding.
    assert 0 < difference / jnp.linalg.norm(outputs.logits) < 0.05


def test_every_name_is_covered():
    assert sum(map(len, KINDS.values())) == len(MODELS)
