import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from robustvit.models import MODELS, create_model
from robustvit.models.depthwise import (
    _depthwise_lax,
    _depthwise_shifts,
    _kernel_gradient_lax,
    _kernel_gradient_shifts,
    depthwise_conv,
)
from robustvit.models.facts import facts
from robustvit.models.layers import BatchNorm, DropPath, gelu
from robustvit.models.positions import fourier_features
from tests.models.reference_xcit import analytic_images, analytic_variables


def abstract_variables(model, size=32):
    images = jnp.zeros((1, size, size, 3))
    return jax.eval_shape(model.init, jax.random.key(0), images)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


PARAMETERS = {  # published counts, by number of classes
    "nano_12": {1000: 3_053_224, 100: 2_937_124, 10: 2_925_514},
    "tiny_12": {1000: 6_716_272},
    "small_12": {1000: 26_253_304, 100: 25_906_804, 10: 25_872_154},
    "medium_12": {1000: 46_401_160, 100: 45_939_460, 10: 45_893_290},
    "large_12": {1000: 103_792_648, 100: 103_100_548, 10: 103_031_338},
    "large_12_h8": {1000: 103_792_552},
    "tiny_24": {1000: 12_116_896},
    "small_24": {1000: 47_671_384},
    "medium_24": {1000: 84_395_752},
    "large_24": {1000: 189_096_136},
}


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameter_counts(size):
    """Of the list, which `tests/interop/test_key_tables.py` holds to the models."""
    name = f"xcit_{size}_p16_224"
    per_class = MODELS[name]().dim + 1
    for classes, expected in PARAMETERS[size].items():
        assert facts()[name].params - (1000 - classes) * per_class == expected


@pytest.mark.parametrize("stem", ["p16_224", "p8_32", "p4_32", "p2_32"])
def test_variables_do_not_depend_on_strides(stem):
    model = create_model(f"xcit_nano_12_{stem}", num_classes=10)
    params = abstract_variables(model)["params"]
    assert count(params) == PARAMETERS["nano_12"][10]
    assert len(jax.tree.leaves(params)) == 343
    assert facts()[f"xcit_nano_12_{stem}"].params == PARAMETERS["nano_12"][1000]


GOLDEN = [  # name, image size, first five logits of image 0, sum, sum of squares
    ("xcit_nano_12_p16_224", 64,
     [-1.139151, 0.943351, -1.074685, 0.804533, -0.747695], -1.782078, 10.177575),
    ("xcit_tiny_12_p16_224", 64,
     [-1.013396, 0.587698, 0.350897, -1.060677, 0.211558], -0.649226, 10.539554),
    ("xcit_tiny_12_p4_32", 32,
     [-1.009636, 0.589289, 0.346033, -1.058894, 0.215186], -0.648927, 10.492621),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "first", "total", "squares"), GOLDEN)
def test_golden_forward_of_timm(name, size, first, total, squares):
    """timm's logits in float64 for weights that are a formula of their names."""
    model = create_model(name, num_classes=10)
    variables, order = analytic_variables(model)
    assert len(order) == 391  # entries of timm's state dict
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(model.apply)(variables, analytic_images(size)).logits
    np.testing.assert_allclose(logits[0, :5], first, atol=1e-4)
    np.testing.assert_allclose(logits.sum(), total, atol=1e-4)
    np.testing.assert_allclose(jnp.square(logits).sum(), squares, atol=1e-4)


def test_positions_match_the_reference():
    features = fourier_features(14)
    first = [0.433884, 0.900969, 0.249707, 0.968321, 0.141447, 0.989946]
    np.testing.assert_allclose(features[0, :6], first, atol=1e-6)
    np.testing.assert_allclose(features[-1, :2], [-3e-7, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    ("stem", "size", "tokens"),
    [("p4_32", 32, 64), ("p8_32", 32, 16), ("p16_224", 224, 196), ("p16_224", 32, 4)],
)
def test_outputs(stem, size, tokens):
    model = create_model(f"xcit_nano_12_{stem}", num_classes=10)
    images = jnp.zeros((2, size, size, 3))

    def run():
        variables = model.init(jax.random.key(0), images)
        return model.apply(variables, images)

    outputs = jax.eval_shape(run)
    assert outputs.logits.shape == (2, 10)
    assert outputs.features.shape == (2, 1 + tokens, 128)
    assert [h.shape for h in outputs.hidden] == [(2, tokens, 128)] * 12


TINY = {"dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}


@pytest.fixture(scope="module")
def tiny():
    model = create_model("xcit_nano_12_p8_32", **TINY)
    images = jax.random.uniform(jax.random.key(1), (8, 32, 32, 3))
    return model, model.init(jax.random.key(0), images), images


def test_remat_changes_nothing(tiny):
    model, variables, images = tiny

    def loss(params, model):
        variables_ = {**variables, "params": params}
        out, _ = model.apply(
            variables_,
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(3)},
        )
        return jnp.square(out.logits).sum()

    gradients = [
        jax.jit(jax.grad(loss), static_argnums=1)(
            variables["params"], model.clone(remat=remat, drop_path=0.1)
        )
        for remat in (False, True)
    ]
    assert_trees_all_close(*gradients, rtol=1e-4, atol=1e-4)  # recomputed, not equal


def test_bfloat16_is_close_and_heads_are_float32(tiny):
    model, variables, images = tiny
    exact = model.apply(variables, images).logits
    rough = model.clone(dtype=jnp.bfloat16).apply(variables, images).logits
    assert rough.dtype == jnp.float32
    error = jnp.linalg.norm(rough - exact) / jnp.linalg.norm(exact)
    assert 0 < error < 0.02  # bf16 keeps 8 bits: 0.4 % per rounding


def test_initial_values(tiny):
    params = abstract_variables(create_model("xcit_tiny_24_p16_224"))["params"]
    assert params["blocks_23"]["gamma3"].shape == (192,)
    _, variables, _ = tiny
    params = variables["params"]
    block = params["blocks_0"]
    np.testing.assert_array_equal(block["gamma1"], 1.0)
    np.testing.assert_array_equal(block["attn"]["temperature"], np.ones((2, 1, 1)))
    np.testing.assert_array_equal(block["mlp"]["fc1"]["bias"], 0.0)
    assert np.std(block["mlp"]["fc1"]["kernel"]) == pytest.approx(0.02, rel=0.05)
    kernel = np.abs(block["local_mp"]["conv1"]["kernel"])
    assert 0.9 / 3 < kernel.max() <= 1 / 3  # U(-1/sqrt(9), 1/sqrt(9))
    kernel = np.abs(params["pos_embed"]["proj"]["kernel"])
    assert 0.95 / 8 < kernel.max() <= 1 / 8


def test_normalisation_is_inside(tiny):
    model, variables, images = tiny
    mean, std = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
    outside = model.apply(variables, (images - jnp.array(mean)) / jnp.array(std)).logits

    normalized = model.clone(mean=mean, std=std)
    made = normalized.init(jax.random.key(0), images)
    inside = normalized.apply(made, images).logits
    np.testing.assert_allclose(inside, outside, atol=1e-5)
    # Weights carry their normalisation; fields are for a model without any.
    carried = model.apply(made, images).logits
    np.testing.assert_array_equal(carried, inside)
    stats = {k: v for k, v in made["batch_stats"].items() if k != "normalize"}
    without = normalized.apply({**made, "batch_stats": stats}, images).logits
    np.testing.assert_allclose(without, outside, atol=1e-5)


def test_gelu_is_exact_and_so_is_its_derivative():
    x = jnp.linspace(-6, 6, 101)
    reference = lambda x: jax.nn.gelu(x, approximate=False)  # noqa: E731
    np.testing.assert_allclose(gelu(x), reference(x), atol=1e-6)
    slope = jax.vmap(jax.grad(gelu))(x)
    np.testing.assert_allclose(slope, jax.vmap(jax.grad(reference))(x), atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "lax"),
    [(_depthwise_shifts, _depthwise_lax),
     (_kernel_gradient_shifts, _kernel_gradient_lax)],
)  # fmt: skip
def test_depthwise_forms_agree(ours, lax):
    x = jax.random.normal(jax.random.key(0), (2, 7, 5, 6))
    other = jax.random.normal(
        jax.random.key(1), (3, 3, 1, 6) if ours is _depthwise_shifts else x.shape
    )
    np.testing.assert_allclose(ours(x, other), lax(x, other), atol=1e-5)


def test_depthwise_gradients_match_autodiff():
    x = jax.random.normal(jax.random.key(0), (2, 7, 5, 6))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 6))

    def loss(conv):
        return lambda x, k: jnp.sin(conv(x, k)).sum()

    ours = jax.grad(loss(depthwise_conv), (0, 1))(x, kernel)
    reference = jax.grad(loss(_depthwise_lax), (0, 1))(x, kernel)
    assert_trees_all_close(ours, reference, atol=1e-4)


def test_batch_norm_groups_are_separate_batches():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (8, 4, 4, 5))
    norm = BatchNorm(group=4)
    variables = norm.init(jax.random.key(1), x, train=True)
    y, new = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    halves = [
        norm.apply(variables, half, train=True, mutable=["batch_stats"])
        for half in (x[:4], x[4:])
    ]
    np.testing.assert_allclose(y, np.concatenate([h[0] for h in halves]), atol=1e-6)
    averaged = jax.tree.map(lambda a, b: (a + b) / 2, halves[0][1], halves[1][1])
    assert_trees_all_close(new, averaged, atol=1e-6)

    flat = np.asarray(x).reshape(2, -1, 5)
    mean, var = flat.mean((0, 1)), flat.var(1, ddof=1).mean(0)
    stats = new["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, atol=1e-5)


def test_batch_norm_without_group_is_global_and_eval_uses_running_statistics():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (8, 4, 4, 5))
    norm = BatchNorm()
    variables = norm.init(jax.random.key(1), x, train=True)
    y = norm.apply(variables, x, train=True)  # immutable: statistics stay
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1.0, atol=1e-4)
    np.testing.assert_allclose(
        norm.apply(variables, x, train=False), x / np.sqrt(1 + 1e-5), rtol=1e-5
    )


def test_batch_norm_refuses_a_broken_group():
    norm = BatchNorm(group=3)
    x = jnp.zeros((8, 2, 2, 1))
    variables = norm.init(jax.random.key(0), x, train=True)
    with pytest.raises(ValueError, match=r"batch of 8 .* groups of 3"):
        norm.apply(variables, x, train=True)


def test_drop_path_drops_examples_and_keeps_the_mean():
    x = jnp.ones((4000, 3, 2))
    layer = DropPath(0.25)
    y = layer.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    per_example = y.reshape(4000, -1)
    assert set(np.unique(per_example)) == {0.0, np.float32(1 / 0.75)}
    assert (per_example.min(1) == per_example.max(1)).all()
    assert y.mean() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_array_equal(layer.apply({}, x, train=False), x)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("xcit_smal_12_p16_224", {}, "did you mean 'xcit_small_12_p16_224'"),
        ("resnet", {}, "unknown model 'resnet'"),
        ("xcit_nano_12_p4_32", {"drop_pth": 0.1}, "did you mean 'drop_path'"),
    ],
)
def test_wrong_names_are_told(name, args, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **args)
