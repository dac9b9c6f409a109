"""Every family against a PyTorch reference, with weights that are formulas of names."""

from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from robustvit import models
from robustvit.interop.names import entries
from tests.models.zoo_cases import (
    CASES,
    MEAN,
    NUM_CLASSES,
    STD,
    filled,
    images,
    sample,
    weights,
)

GOLDEN = Path(__file__).parents[1] / "golden"
NAMED = {case.name: case for case in CASES}
by_case = pytest.mark.parametrize("name", NAMED)


@cache
def reference(family):
    return dict(np.load(GOLDEN / f"{family.lower()}.npz"))


@cache
def build(name):
    """The model, and its table of names."""
    case = NAMED[name]
    fields = {"num_classes": NUM_CLASSES, "mean": MEAN, "std": STD, **case.fields}
    model = vars(models)[case.family](**fields)
    return model, entries(model)


@by_case
def test_keys_are_those_of_the_reference(name):
    golden = reference(NAMED[name].family)
    ours = [entry.key for entry in build(name)[1]]
    assert sorted(ours) == golden[f"{name}/keys"].tolist()


@by_case
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_values_are_those_of_the_reference(name, mode):
    golden = reference(NAMED[name].family)
    gradient, outputs, new = run(name, train=mode == "train")

    def assert_same(what, ours, key):
        expected = golden[f"{name}/{key}"]
        # The reference is in float64: what remains is float32's rounding.
        atol = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=atol, err_msg=what)

    assert_same("logits", outputs.logits, f"{mode}/logits")
    assert_same("shape", outputs.features.shape, f"{mode}/features_shape")
    assert_same("features", sample(outputs.features), f"{mode}/features")
    assert_same("gradient", sample(gradient), f"{mode}/gradient")
    if mode == "train":
        statistics = traverse_util.flatten_dict(new)
        for entry in build(name)[1]:
            if f"{name}/statistics/{entry.key}" in golden:
                ours = statistics[entry.path]
                assert_same(entry.key, ours, f"statistics/{entry.key}")


def run(name, *, train):
    """Gradient of the weighted logits by the images; outputs; new statistics."""
    model, table = build(name)
    variables = filled(table)

    # Most of the time here is the compiler's; it need not try hard.
    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def value_and_gradient(variables, x):
        def loss(x):
            out, new = model.apply(variables, x, train=train, mutable=["batch_stats"])
            return (out.logits * weights(len(x))).sum(), (out, new)

        return jax.grad(loss, has_aux=True)(x)

    with jax.default_matmul_precision("highest"):
        x = images(NAMED[name]).astype(np.float32)
        gradient, (outputs, new) = value_and_gradient(variables, x)
    return gradient, outputs, new
