"""What families of maps do besides computing the right numbers."""

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
from robustvit.models.swin import Swin
from robustvit.models.wide_resnet import WideResNet
from tests.models.zoo_cases import filled

NARROW = {"num_classes": 5, "widths": (8, 16)}
MODELS = {
    "resnet": ResNet(layers=(1, 2), cardinality=2, base_width=16, **NARROW),
    "wide_resnet": WideResNet(num_classes=5, depth=10, width=1),
    "preact_resnet": PreActResNet(layers=(1, 2), **NARROW),
    "cifar_resnet": CifarResNet(num_classes=5, depth=8),
    "convnext": ConvNeXt(depths=(1, 2), **NARROW),
    "poolformer": PoolFormer(depths=(1, 2), **NARROW),
    "swin": Swin(
        num_classes=5, image_size=16, window=2, dim=8, depths=(2, 1), num_heads=(2, 2)
    ),
}
IMAGES = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_remat_changes_nothing(name):
    model = MODELS[name]
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
        (Swin(image_size=72), r"image_size=72 must be divisible by 32"),
        (Swin(), r"images of 16x16 for a Swin with image_size=224"),
    ],
)
def test_impossible_sizes_are_told(model, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)
