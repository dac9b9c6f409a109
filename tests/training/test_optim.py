import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robustvit.models import create_model
from robustvit.training import optim


def constant(value):
    return optax.constant_schedule(value)


def test_decay_split_of_small_xcit():
    """The published split: 102 tensors decayed, 241 exempt."""
    model = create_model("xcit_small_12_p16_224")
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    params = params["params"]
    mask = jax.tree.leaves(optim.decayed(params))
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    decayed = [size for size, yes in zip(sizes, mask, strict=True) if yes]
    assert (len(decayed), sum(decayed)) == (102, 26_136_432)
    assert (len(sizes) - 102, sum(sizes) - sum(decayed)) == (241, 116_872)
    tree = optim.decayed(params)
    assert tree["blocks_0"]["attn"]["temperature"]
    assert tree["pos_embed"]["proj"]["kernel"]
    assert not tree["cls_token"]


def one_update(tx, params, grads):
    updates, _ = tx.update(grads, tx.init(params), params)
    return optax.apply_updates(params, updates)


def test_adamw_decays_by_rate_times_decay_and_only_matrices():
    params = {"w": jnp.full((2, 2), 3.0), "b": jnp.full(2, 3.0)}
    grads = jax.tree.map(jnp.ones_like, params)
    new = one_update(optim.adamw(constant(0.01), weight_decay=0.5), params, grads)
    # Adam's first step is the sign of the gradient.
    np.testing.assert_allclose(new["w"], 3 - 0.01 - 0.01 * 0.5 * 3, rtol=1e-5)
    np.testing.assert_allclose(new["b"], 3 - 0.01, rtol=1e-5)


def test_sgd_is_torchs():
    """Decay joins the gradient; two steps of Nesterov momentum by hand."""
    tx = optim.sgd(constant(0.1), weight_decay=0.5)
    params = {"w": jnp.ones((1, 1))}
    state, w, velocity = tx.init(params), 1.0, 0.0
    for _ in range(2):
        updates, state = tx.update({"w": jnp.ones((1, 1))}, state, params)
        params = optax.apply_updates(params, updates)
        gradient = 1 + 0.5 * w
        velocity = 0.9 * velocity + gradient
        w -= 0.1 * (gradient + 0.9 * velocity)
        assert params["w"][0, 0] == pytest.approx(w, rel=1e-6)


def test_clipping_bounds_the_norm():
    tx = optim.sgd(constant(1.0), momentum=0.0, nesterov=False, clip_norm=2.0)
    new = one_update(tx, {"w": jnp.zeros((1, 2))}, {"w": jnp.array([[30.0, 40.0]])})
    np.testing.assert_allclose(new["w"], [[-1.2, -1.6]], rtol=1e-6)


def test_frozen_parameters_do_not_move_and_have_no_state():
    params = {
        "head": {"kernel": jnp.ones((2, 2))},
        "body": {"kernel": jnp.ones((9, 9))},
    }
    tx = optim.partition(optim.adamw(constant(0.1), weight_decay=0.5), ["^head/"])
    grads = jax.tree.map(jnp.ones_like, params)
    new = one_update(tx, params, grads)
    np.testing.assert_array_equal(new["body"]["kernel"], params["body"]["kernel"])
    assert (new["head"]["kernel"] < 1).all()
    assert sum(leaf.size for leaf in jax.tree.leaves(tx.init(params))) < 81


def test_pattern_without_a_parameter_is_an_error():
    tx = optim.partition(optim.adamw(constant(0.1), weight_decay=0.5), ["hed"])
    with pytest.raises(ValueError, match=r"'hed' matches no parameter.*head/kernel"):
        tx.init({"head": {"kernel": jnp.ones((2, 2))}})
