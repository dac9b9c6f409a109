"""Soft targets through every objective, and what happens without them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustvit import losses
from robustvit.attacks import PGD
from robustvit.objectives import adversarial, standard, trades
from robustvit.objectives.forward import example_keys
from robustvit.threat import ThreatModel
from robustvit.types import TrainState
from tests.tiny import TinyNet

THREAT = ThreatModel("linf", 0.1)
KEY = jax.random.key(9)
LABELS = jnp.array([0, 1, 2, 3, 4, 0])
OTHERS = LABELS[::-1]
SHARE = jnp.array([0.9, 0.7, 0.2, 0.4, 1.0, 0.45])[:, None]
TARGET = SHARE * jax.nn.one_hot(LABELS, 5) + (1 - SHARE) * jax.nn.one_hot(OTHERS, 5)
HARD = jnp.array([0, 1, 3, 2, 4, 0])  # both labels of the last are 0
OBJECTIVES = {"standard": standard, "adversarial": adversarial, "trades": trades}


def build(name, **args):
    return OBJECTIVES[name](TinyNet(), PGD(2, 0.05), **args)


@functools.cache
def loss_of(name, smoothing):
    return jax.jit(build(name, label_smoothing=smoothing).loss)


@pytest.fixture(scope="module")
def state():
    variables = jax.jit(TinyNet().init)(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    return TrainState(
        step=jnp.array(0), params=variables["params"],
        batch_stats=variables["batch_stats"], opt_state=(), ema={},
        key=jax.random.key(1),
    )  # fmt: skip


def make_batch(**more):
    images = jax.random.uniform(jax.random.key(5), (6, 4, 4, 3))
    index, mask = jnp.arange(6), jnp.ones(6, bool)
    return {"image": images, "label": LABELS, "index": index, "mask": mask, **more}


def value_of(name, smoothing, state, batch):
    """Loss and metrics on images a little off the clean ones."""
    x_adv = batch["image"] + 0.05
    loss, (_, metrics) = loss_of(name, smoothing)(
        state.params, state, batch, x_adv, KEY
    )
    return float(loss), metrics


def test_soft_cross_entropy_is_its_definition():
    logits = jax.random.normal(KEY, (6, 5))
    expected = -(np.asarray(TARGET) * np.log(jax.nn.softmax(logits))).sum(-1)
    value = losses.soft_cross_entropy(logits, TARGET)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert value.shape == (6,) and (value > 0).all()
    smooth = 0.9 * jax.nn.one_hot(LABELS, 5) + 0.02
    np.testing.assert_allclose(
        losses.soft_cross_entropy(logits, smooth),
        losses.cross_entropy(logits, LABELS, smoothing=0.1),
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_smoothed_labels_as_targets_are_label_smoothing(name, state):
    smooth = 0.9 * jax.nn.one_hot(LABELS, 5) + 0.02
    by_labels = value_of(name, 0.1, state, make_batch())
    by_target = value_of(name, 0.5, state, make_batch(target=smooth))
    assert by_target[0] == pytest.approx(by_labels[0], rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_is_linear_in_the_target_and_not_smoothed_again(name, state):
    """Of a mixture, the mixture of the losses: CE is linear, TRADES' KL the same."""
    share = 0.3
    one_hot = jax.nn.one_hot(LABELS, 5), jax.nn.one_hot(OTHERS, 5)
    mixed = share * one_hot[0] + (1 - share) * one_hot[1]
    got, *parts = (
        value_of(name, 0.5, state, make_batch(target=t))[0] for t in (mixed, *one_hot)
    )
    assert got == pytest.approx(share * parts[0] + (1 - share) * parts[1], rel=1e-5)
    sharp = value_of(name, 0.0, state, make_batch())[0]
    assert parts[0] == pytest.approx(sharp, rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_accuracies_go_by_the_likeliest_class(name, state):
    _, soft = value_of(name, 0.5, state, make_batch(target=TARGET))
    _, hard = value_of(name, 0.0, state, make_batch(label=HARD))
    names = {key for key in hard if "accuracy" in key}
    assert names
    assert {key: soft[key] for key in names} == {key: hard[key] for key in names}


def test_attacks_climb_the_loss_of_the_likeliest_class(state):
    perturb = jax.jit(build("adversarial").perturb)
    soft = perturb(state, make_batch(target=TARGET), THREAT, KEY)
    hard = perturb(state, make_batch(label=HARD), THREAT, KEY)
    np.testing.assert_array_equal(soft, hard)
    other = perturb(state, make_batch(), THREAT, KEY)
    assert (soft != other).any()


def test_views_of_an_image_have_keys_of_their_own():
    index, view = jnp.array([7, 7, 7, 8, 8, 8]), jnp.arange(6) % 3
    keys = jax.random.key_data(example_keys(KEY, index))
    assert len(np.unique(keys, axis=0)) == 2
    keys = jax.random.key_data(example_keys(KEY, index, view))
    assert len(np.unique(keys, axis=0)) == 6


def test_views_of_an_image_start_attacks_apart(state):
    """Without a step, so that all there is to see is the random start."""
    twins = make_batch(index=jnp.zeros(6, int), view=jnp.arange(6) % 3)
    twins["image"] = jnp.full((6, 4, 4, 3), 0.5)
    objective = adversarial(TinyNet(), PGD(1, 0.0))
    x_adv = np.asarray(jax.jit(objective.perturb)(state, twins, THREAT, KEY))
    np.testing.assert_array_equal(x_adv[:3], x_adv[3:])
    assert len({x.tobytes() for x in x_adv}) == 3
