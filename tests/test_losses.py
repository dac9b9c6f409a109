import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustvit import losses

LOGITS = jnp.array([[3.0, 1.0, 0.0, -1.0]])


@pytest.mark.parametrize(("label", "value"), [(0, -2 / 3), (1, 2 / 3)])
def test_dlr(label, value):
    assert losses.dlr(LOGITS, jnp.array([label]))[0] == pytest.approx(value)


def test_targeted_dlr():
    value = losses.targeted_dlr(LOGITS, jnp.array([0]), jnp.array([2]))
    assert value[0] == pytest.approx(-0.857143, abs=1e-6)


@pytest.mark.parametrize(("label", "value"), [(0, -2.0), (1, 2.0), (3, 4.0)])
def test_margin(label, value):
    assert losses.margin(LOGITS, jnp.array([label]))[0] == value


def test_smoothed_cross_entropy_of_flat_logits_is_log_k():
    flat = jnp.zeros((1, 7))
    value = losses.cross_entropy(flat, jnp.array([3]), smoothing=0.1)
    assert value[0] == pytest.approx(np.log(7), rel=1e-6)


def test_smoothing_is_cross_entropy_with_soft_labels():
    labels = jnp.array([1])
    soft = 0.9 * jax.nn.one_hot(labels, 4) + 0.1 / 4
    expected = -(soft * jax.nn.log_softmax(LOGITS)).sum(-1)
    smoothed = losses.cross_entropy(LOGITS, labels, smoothing=0.1)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-6)


def test_kl_is_zero_only_between_equals_and_matches_the_definition():
    other = jnp.array([[0.0, 2.0, 0.0, 1.0]])
    p, q = jax.nn.softmax(LOGITS), jax.nn.softmax(other)
    expected = (p * jnp.log(p / q)).sum()
    assert losses.kl(LOGITS, other)[0] == pytest.approx(float(expected), rel=1e-5)
    assert losses.kl(LOGITS, LOGITS + 5)[0] == pytest.approx(0.0, abs=1e-6)


def test_targeted_cross_entropy_rises_towards_the_target():
    slope = jax.grad(lambda z: losses.targeted_cross_entropy(z, jnp.array([2])).sum())
    assert (jnp.sign(slope(LOGITS)) == jnp.array([[-1, -1, 1, -1]])).all()
