"""What every convolutional family does besides computing the right numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from robustvit.interop.names import entries
from robustvit.models.cifar_resnet import CifarResNet
from robustvit.models.convnext import ConvNeXt
from robustvit.models.convolutions import linear_drop_path
from robustvit.models.poolformer import PoolFormer
from robustvit.models.preact_resnet import PreActResNet
from robustvit.models.resnet import ResNet
from robustvit.models.wide_resnet import WideResNet
from tests.models.zoo_cases import filled

NARROW = {"num_classes": 5, "widths": (8, 16)}
MODELS = {  # and number of blocks
    "resnet": (ResNet(layers=(1, 2), cardinality=2, base_width=16, **NARROW), 3),
    "wide_resnet": (WideResNet(num_classes=5, depth=10, width=1), 3),
    "preact_resnet": (PreActResNet(layers=(1, 2), **NARROW), 3),
    "cifar_resnet": (CifarResNet(num_classes=5, depth=8), 3),
    "convnext": (ConvNeXt(depths=(1, 2), **NARROW), 3),
    "poolformer": (PoolFormer(depths=(1, 2), **NARROW), 3),
}
by_family = pytest.mark.parametrize(
    ("model", "blocks"), MODELS.values(), ids=MODELS.keys()
)
IMAGES = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)


@by_family
def test_outputs(model, blocks):
    model = model.clone(dtype=jnp.bfloat16)

    def run(model):
        variables = model.init(jax.random.key(0), IMAGES)
        return model.apply(variables, IMAGES)

    outputs = jax.eval_shape(lambda: run(model))
    assert outputs.logits.shape == (4, 5)
    assert outputs.logits.dtype == outputs.features.dtype == jnp.float32
    assert len(outputs.hidden) == blocks
    assert outputs.hidden[-1].shape == outputs.features.shape
    assert {h.dtype for h in outputs.hidden} == {jnp.dtype(jnp.bfloat16)}

    headless = jax.eval_shape(lambda: run(model.clone(num_classes=0)))
    assert headless.logits.shape == (4, outputs.features.shape[-1])


@by_family
def test_remat_changes_nothing(model, blocks):
    variables = filled(entries(model))
    if "drop_path" in model.__dataclass_fields__:
        model = model.clone(drop_path=0.5)

    def loss(params, model):
        logits = model.apply(
            {**variables, "params": params},
            IMAGES,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )[0].logits
        return jnp.square(logits).sum()

    options = {"xla_backend_optimization_level": 0}  # it is compiled, and run once
    plain, remat = (
        jax.jit(jax.grad(loss), static_argnums=1, compiler_options=options)(
            variables["params"], model.clone(remat=remat)
        )
        for remat in (False, True)
    )
    assert_trees_all_close(plain, remat, rtol=1e-4, atol=1e-4)  # recomputed, not equal


def test_initial_values():
    def init(model):
        return jax.jit(model.init)(jax.random.key(0), IMAGES)["params"]

    params = init(ResNet(layers=(1,), widths=(64,), num_classes=10))
    block = params["layer1_0"]
    np.testing.assert_array_equal(block["bn3"]["scale"], 0.0)
    np.testing.assert_array_equal(block["bn2"]["scale"], 1.0)
    deviation = (2 / (9 * 64)) ** 0.5
    assert np.std(block["conv2"]["kernel"]) == pytest.approx(deviation, rel=0.02)
    for leaf in params["fc"].values():  # torch's own: U(-1/sqrt(n), 1/sqrt(n))
        assert 0.5 / 16 < np.abs(leaf).max() <= 1 / 16

    params = init(ConvNeXt(depths=(1,), widths=(96,), num_classes=10))
    block = params["stages_0"]["blocks_0"]
    np.testing.assert_array_equal(block["gamma"], np.float32(1e-6))
    for kernel in (block["conv_dw"]["kernel"], params["head"]["fc"]["kernel"]):
        assert np.std(kernel) == pytest.approx(0.02, rel=0.05)
    np.testing.assert_array_equal(params["head"]["fc"]["bias"], 0.0)


def test_drop_path_rises_from_zero():
    np.testing.assert_allclose(linear_drop_path(0.3, 4), [0, 0.1, 0.2, 0.3])
    assert linear_drop_path(0.3, 1) == (0.0,)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (WideResNet(depth=30), r"depth=30 must be 6 n \+ 4"),
        (CifarResNet(depth=18), r"depth=18 must be 6 n \+ 2"),
    ],
)
def test_impossible_depths_are_told(model, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)
