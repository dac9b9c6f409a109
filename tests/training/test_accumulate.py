"""Gradients of several steps make one update; everything that counts, counts right."""

import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robustvit import recipe
from robustvit.objectives import standard
from robustvit.threat import ThreatModel
from robustvit.training import optim
from robustvit.training.checkpoint import Checkpoints
from robustvit.training.step import init_state, make_train_step
from robustvit.types import Outputs
from tests.tiny import TinyNet
from tests.training.test_step import batch_at

K = 4
THREAT = ThreatModel("linf", 0.0)


class NoBatchNorm(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = jnp.tanh(nn.Conv(4, (3, 3), (2, 2))(images))
        return Outputs(logits=nn.Dense(5)(x.mean((1, 2))), features=x, hidden=(x,))


def start(model, tx, ema=False):
    return init_state(model, tx, jax.random.key(0), 32, ema=ema)


def run(model, tx, steps, state=None, first=0, **options):
    ema = options.get("ema_decay", 0) > 0
    state = start(model, tx, ema) if state is None else state
    step = jax.jit(make_train_step(standard(model), tx, **options))
    states = []
    for i in range(first, first + steps):
        state, _ = step(state, batch_at(i), THREAT)
        states.append(state)
    return states


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.sgd(optax.constant_schedule(0.1), weight_decay=1e-3),
        lambda: optim.sgd(optax.constant_schedule(0.1), clip_norm=0.05),
        lambda: optim.sgd(lambda update: 0.1 * (update + 1), momentum=0.0),
    ],
    ids=["decay", "clipped", "rate-rises"],
)
def test_small_batches_update_like_their_union(make):
    """Two updates, so that momentum and the schedule's count matter."""
    model = NoBatchNorm()
    small = run(model, optim.accumulate(make(), K), 2 * K)
    whole = make()
    step = jax.jit(make_train_step(standard(model), whole))
    state = start(model, whole)
    for window in range(2):
        parts = [batch_at(window * K + i) for i in range(K)]
        union = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        state, _ = step(state, union, THREAT)
        # float32; the mean of means of 8 against one of 32
        found = small[(window + 1) * K - 1].params
        chex.assert_trees_all_close(found, state.params, rtol=2e-5, atol=1e-6)
    chex.assert_trees_all_equal(small[0].params, small[K - 2].params)
    different = jax.tree.map(lambda a, b: jnp.any(a != b), small[0].params, found)
    assert any(jax.tree.leaves(different))


def test_average_moves_with_updates_and_statistics_with_steps():
    model = TinyNet()
    tx = optim.accumulate(optim.sgd(optax.constant_schedule(0.1)), K)
    states = run(model, tx, K, ema_decay=0.75, accumulate=K)
    before = start(model, tx, ema=True)
    for state in states[:-1]:
        chex.assert_trees_all_equal(state.ema, before.ema)
    last = states[-1]
    expected = jax.tree.map(
        lambda a, b: 0.75 * a + 0.25 * b, before.params, last.params
    )
    chex.assert_trees_all_close(last.ema["params"], expected, atol=1e-6)
    means = [jax.tree.leaves(s.batch_stats)[0] for s in states]
    assert all((a != b).any() for a, b in itertools.pairwise(means))


def test_frozen_parameters_have_no_sums_of_gradients():
    params = {
        "head": {"kernel": jnp.ones((2, 2))},
        "body": {"kernel": jnp.ones((9, 9))},
    }
    tx = optim.accumulate(optim.sgd(optax.constant_schedule(0.1)), K)
    state = optim.partition(tx, ["^head/"]).init(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 81


def test_a_checkpoint_within_a_window_goes_on_exactly(tmp_path):
    model = TinyNet()
    tx = optim.accumulate(
        optim.adamw(optax.constant_schedule(0.01), weight_decay=0.1), K
    )
    tx = optim.partition(tx, ["head", "conv"])
    options = {"ema_decay": 0.9, "accumulate": K}
    whole = run(model, tx, K + 3, **options)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(whole[1], {}, None)
        checkpoints.wait()
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            start(model, tx, ema=True),
        )
        state = checkpoints.restore(shapes)
    rest = run(model, tx, K + 1, state=state, first=2, **options)
    for name in ("params", "opt_state", "ema", "batch_stats"):
        chex.assert_trees_all_equal(getattr(rest[-1], name), getattr(whole[-1], name))


def test_epochs_end_where_updates_do():
    assert [recipe.whole_updates(95, k) for k in (1, 2, 8, 95)] == [95, 94, 88, 95]
    for k in (0, 96):
        with pytest.raises(ValueError, match=rf"accumulate={k} must be in \[1, 95\]"):
            recipe.whole_updates(95, k)
