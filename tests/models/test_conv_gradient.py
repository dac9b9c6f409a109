import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close
from jax import lax

from robustvit.models.conv_gradient import LAYOUT, conv_general_dilated


@pytest.mark.parametrize(
    ("size", "kernel", "strides", "padding"),
    [
        ((8, 8), (3, 3), (1, 1), ((1, 1), (1, 1))),
        ((9, 6), (3, 3), (2, 2), ((1, 1), (1, 1))),
        ((8, 8), (3, 3), (2, 2), ((1, 1), (1, 1))),
        ((15, 14), (7, 7), (2, 2), ((3, 3), (3, 3))),
        ((8, 12), (4, 4), (4, 4), "VALID"),
        ((7, 7), (1, 1), (2, 2), ((0, 0), (0, 0))),
        ((7, 5), (3, 2), (1, 2), ((0, 2), (1, 0))),
        ((8, 8), (3, 3), (2, 2), "SAME"),
    ],
)
def test_gradients_are_autodiffs(size, kernel, strides, padding):
    rng = np.random.RandomState(0)
    x = rng.standard_normal((2, *size, 3)).astype(np.float32)
    k = rng.standard_normal((*kernel, 3, 5)).astype(np.float32)

    def loss(conv):
        return lambda x, k: jnp.sin(
            conv(x, k, strides, padding, dimension_numbers=LAYOUT)
        ).sum()

    ours = jax.value_and_grad(loss(conv_general_dilated), (0, 1))(x, k)
    reference = jax.value_and_grad(loss(lax.conv_general_dilated), (0, 1))(x, k)
    assert_trees_all_close(ours, reference, rtol=1e-4, atol=1e-4)


def test_the_gradient_in_a_loop_has_the_librarys_form():
    """The layout that decides between a fast and a slow convolution on CPU."""
    x, k = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))

    def step(x, _):
        out = lambda x: jax.nn.relu(  # noqa: E731
            conv_general_dilated(x, k, (1, 1), ((1, 1), (1, 1)))
        ).sum()
        return x + jax.grad(out)(x), None

    climb = jax.jit(lambda x: lax.scan(step, x, None, length=3)[0])
    text = climb.lower(x).compile().as_text()
    assert "01io->" in text and "01oi->" not in text
