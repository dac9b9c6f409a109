"""The two hooks of a frozen ViT, and what the tokens in front of the patches are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustvit.interop.names import abstract_variables, entries
from robustvit.models import create_model
from tests.models.zoo_cases import filled

SMALL = {"dim": 24, "depth": 3, "num_heads": 2, "patch_size": 8, "image_size": 32}
NAMES = ["vit_tiny_patch16_224", "deit3_small_patch16_224", "dinov2_vits14",
         "vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_224"]  # fmt: skip


@pytest.fixture(scope="module", params=NAMES)
def frozen(request):
    """A ViT, its weights, and images."""
    model = create_model(request.param, **SMALL, num_classes=5)
    images = np.random.RandomState(0).random_sample((2, 32, 32, 3)).astype(np.float32)
    return model, filled(entries(model)), images


@pytest.fixture(scope="module")
def apply(frozen):
    """The forward pass, compiled once for every number of tokens."""
    model, variables, images = frozen
    run = jax.jit(lambda tokens: model.apply(variables, images, extra_tokens=tokens))
    with jax.default_matmul_precision("highest"):
        yield run


TOKENS = np.random.RandomState(1).standard_normal((1, 4, 24)).astype(np.float32)


def test_no_tokens_are_no_tokens(frozen, apply):
    plain, none = apply(None), apply(TOKENS[:, :0])
    np.testing.assert_array_equal(plain.logits, none.logits)


def test_tokens_are_dropped_and_felt(frozen, apply):
    plain, more = apply(None), apply(TOKENS)
    assert more.features.shape == plain.features.shape
    assert more.hidden[0].shape[1] == plain.hidden[0].shape[1] + 4
    assert np.abs(more.features - plain.features).max() > 1e-2


def test_the_order_of_tokens_does_not_matter(frozen, apply):
    there, back = apply(TOKENS), apply(TOKENS[:, ::-1])
    np.testing.assert_allclose(there.features, back.features, atol=2e-5)


def test_tokens_may_differ_per_image(frozen, apply):
    both = np.concatenate([TOKENS, -TOKENS])
    mixed, first = apply(both), apply(TOKENS)
    np.testing.assert_allclose(mixed.logits[0], first.logits[0], atol=1e-5)
    assert np.abs(mixed.logits[1] - first.logits[1]).max() > 1e-3


def test_registers_are_tokens_that_come_first():
    """A13, fact 16: r in DINOv2's register slot is the same function."""
    registers = create_model("vit_small_patch14_reg4_dinov2", **SMALL)
    variables = filled(entries(registers))
    params = dict(variables["params"])
    tokens = params.pop("reg_token")
    plain = registers.clone(num_registers=0)
    images = np.random.RandomState(0).random_sample((2, 32, 32, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        ours = registers.apply(variables, images).features
        same = plain.apply({"params": params}, images, extra_tokens=tokens).features
    np.testing.assert_allclose(np.delete(ours, [1, 2, 3, 4], axis=1), same, atol=2e-5)


def test_an_adapter_sees_every_block_and_decides_what_goes_on(frozen):
    model, variables, images = frozen
    seen = []

    def adapter(i, x):
        seen.append(i)
        return x.at[..., 0].add(i)  # one channel: a norm does not see all of them

    adapted = model.apply(variables, images, block_adapter=adapter)
    plain = model.apply(variables, images)
    unchanged = model.apply(variables, images, block_adapter=lambda i, x: x)
    assert seen == [0, 1, 2]
    np.testing.assert_array_equal(plain.logits, unchanged.logits)
    np.testing.assert_array_equal(plain.hidden[0], adapted.hidden[0])
    moved = adapted.hidden[1] - plain.hidden[1]
    np.testing.assert_array_equal(moved[..., 1:], 0.0)
    np.testing.assert_allclose(moved[..., 0], 1.0, rtol=1e-5)
    assert np.abs(plain.logits - adapted.logits).max() > 1e-3


def test_dinov2_resizes_positions_as_its_hub_does():
    hub = create_model("dinov2_vits14", **SMALL)
    timm = create_model("vit_small_patch14_dinov2", **SMALL)
    variables = filled(entries(hub))
    native, other = (jnp.full((1, n, n, 3), 0.3) for n in (32, 16))
    outputs = [[m.apply(variables, x).features for m in (hub, timm)]
               for x in (native, other)]  # fmt: skip
    np.testing.assert_array_equal(*outputs[0])
    assert np.abs(outputs[1][0] - outputs[1][1]).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mlp": "relu"}, "mlp='relu' is not one of gelu, quick_gelu, swiglu"),
        ({"position_resize": "nearest"}, "not one of antialias, bicubic"),
        ({"num_heads": 5}, "dim=192 must be a multiple of num_heads=5"),
    ],
)
def test_wrong_fields_are_told(fields, message):
    with pytest.raises(ValueError, match=message):
        create_model("vit_tiny_patch16_224", **fields)


def test_channels_must_be_those_of_the_normalisation():
    model = create_model("vit_tiny_patch16_224", **SMALL)
    with pytest.raises(ValueError, match="images have 1 channels, and mean="):
        model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vit_small_cvst", 22_777_576),
        ("vit_medium_cvst", 39_527_272),
        ("vit_base_cvst", 87_147_112),
    ],
)
def test_parameters_with_a_convolutional_stem(name, parameters):
    shapes = abstract_variables(create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_a_stem_that_makes_other_patches_is_refused():
    with pytest.raises(ValueError, match="3 stem_widths make patches of 8 pixels"):
        create_model("vit_small_cvst", stem_widths=(8, 8, 8))
