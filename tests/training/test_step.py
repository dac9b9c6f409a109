"""The train step: sharding, resuming, averaging, compiling once."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robustvit.attacks import PGD
from robustvit.models import create_model
from robustvit.objectives import adversarial, standard, trades
from robustvit.parallel import check_divisible, data_mesh, put_batch, replicated
from robustvit.threat import ThreatModel
from robustvit.training import optim
from robustvit.training.step import (
    evaluation_variables,
    init_state,
    make_eval_step,
    make_train_step,
)
from tests.tiny import TinyNet

MODEL = TinyNet(bn_group=4)
XCIT = create_model(
    "xcit_nano_12_p8_32",
    dim=16,
    depth=1,
    num_heads=2,
    num_classes=10,
    bn_group=4,
    drop_path=0.2,
)
SGD = optim.sgd(optax.constant_schedule(0.05), weight_decay=1e-4)


def batch_at(step, size=8):
    rng = np.random.default_rng(step)
    return {
        "image": rng.integers(0, 256, (size, 32, 32, 3), np.uint8),
        "label": rng.integers(0, 5, size, np.int32),
        "index": rng.integers(0, 1000, size, np.int32),
        "mask": np.ones(size, bool),
    }


def run(objective, steps, *, devices, tx=SGD, state=None, start=0, model=MODEL, **args):
    mesh = data_mesh(jax.devices()[:devices])
    everywhere = replicated(mesh)
    ema = args.get("ema_decay", 0) > 0
    if state is None:
        init = partial(init_state, model, tx, image_size=32, ema=ema)
        state = jax.jit(init, out_shardings=everywhere)(jax.random.key(0))
    # eps changes at every step, and must not compile anything anew
    train_step, traces = make_train_step(objective, tx, **args), []

    def traced(*args):
        traces.append(1)
        return train_step(*args)

    step = jax.jit(traced, donate_argnums=0, out_shardings=everywhere)
    for i in range(start, start + steps):
        threat = ThreatModel("linf", 0.01 * (i + 1))
        state, metrics = step(state, put_batch(batch_at(i), mesh), threat)
        jax.block_until_ready(state)
    assert len(traces) == 1
    return state, metrics


@pytest.mark.parametrize(
    ("build", "model"),
    [(adversarial, XCIT), (trades, MODEL.clone(dropout=0.2))],
    ids=["xcit-adversarial", "tiny-trades"],
)
def test_one_and_four_devices_agree(build, model):
    """With SGD: Adam would blow rounding errors up to 2e-3."""
    objective = build(model, PGD(2, 0.01), attack_bn="train_update")
    one, metrics_one = run(objective, 3, devices=1, model=model)
    four, metrics_four = run(objective, 3, devices=4, model=model)
    # Sums in another order; a gradient near zero may change its sign in the attack.
    chex.assert_trees_all_close(one.params, four.params, atol=5e-6, rtol=1e-4)
    chex.assert_trees_all_close(one.batch_stats, four.batch_stats, atol=5e-6, rtol=1e-4)
    chex.assert_trees_all_close(metrics_one, metrics_four, rtol=1e-4, atol=1e-5)


def test_grouped_batch_norm_needs_no_collective():
    """With a group per device, what devices exchange is the gradient and metrics."""
    mesh = data_mesh(jax.devices()[:2])

    def collectives(group):
        model = MODEL.clone(bn_group=group)
        objective = adversarial(model, PGD(1, 0.01), attack_bn="train")
        state = jax.eval_shape(
            partial(init_state, model, SGD, image_size=32), jax.random.key(0)
        )
        step = jax.jit(make_train_step(objective, SGD), out_shardings=replicated(mesh))
        text = step.lower(
            jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(
                    x.shape, x.dtype, sharding=replicated(mesh)
                ),
                state,
            ),
            put_batch(batch_at(0), mesh),
            ThreatModel("linf", 0.01),
        ).compile()
        return text.as_text().count(" all-reduce(")

    assert collectives(4) < collectives(None)


def test_going_on_is_the_same_as_not_stopping():
    objective = standard(MODEL)
    tx = optim.adamw(optax.constant_schedule(1e-3), weight_decay=0.5)
    whole, _ = run(objective, 3, devices=2, tx=tx)
    half, _ = run(objective, 2, devices=2, tx=tx)
    rest, _ = run(objective, 1, devices=2, tx=tx, state=half, start=2)
    chex.assert_trees_all_equal(whole.params, rest.params)
    chex.assert_trees_all_equal(whole.opt_state, rest.opt_state)


def test_average_follows_with_its_decay():
    objective = standard(MODEL)
    plain, _ = run(objective, 1, devices=1)
    start = init_state(MODEL, SGD, jax.random.key(0), 32)
    averaged, _ = run(objective, 1, devices=1, ema_decay=0.75)
    for name in ("params", "batch_stats"):
        expected = jax.tree.map(
            lambda a, b: 0.75 * a + 0.25 * b, getattr(start, name), getattr(plain, name)
        )
        chex.assert_trees_all_close(averaged.ema[name], expected, atol=1e-6)
    assert evaluation_variables(averaged) is averaged.ema
    assert evaluation_variables(plain)["params"] is plain.params


def test_augmentation_runs_before_the_attack_with_keys_of_the_examples():
    seen = []

    def augment(images, keys):
        seen.append(keys.shape)
        noise = jax.vmap(lambda key: jax.random.uniform(key))(keys)
        return images * noise[:, None, None, None]

    plain, _ = run(standard(MODEL), 1, devices=1)
    changed, _ = run(standard(MODEL), 1, devices=1, augment=augment)
    assert seen == [(8,)]
    different = jax.tree.map(lambda a, b: jnp.any(a != b), plain.params, changed.params)
    assert any(jax.tree.leaves(different))


def test_eval_step_counts_only_what_is_not_masked():
    state = init_state(MODEL, SGD, jax.random.key(0), 32)
    variables = evaluation_variables(state)
    step = jax.jit(make_eval_step(MODEL, PGD(3, 0.02)))
    batch = batch_at(0)
    threat, key = ThreatModel("linf", 0.03), jax.random.key(1)
    whole = step(variables, batch, threat, key)
    parts = []
    for mask in (np.arange(8) < 3, np.arange(8) >= 3):
        parts.append(step(variables, {**batch, "mask": mask}, threat, key))
    chex.assert_trees_all_close(whole, jax.tree.map(jnp.add, *parts), rtol=1e-5)
    assert whole["count"] == 8 and whole["robust"] <= whole["clean"] <= 8
    logits = MODEL.apply(variables, batch["image"] / np.float32(255)).logits
    assert whole["clean"] == (logits.argmax(-1) == batch["label"]).sum()
    untouched = step(variables, batch, ThreatModel("linf", 0.0), key)
    assert untouched["robust"] == untouched["clean"]


def test_batch_must_divide_over_the_devices():
    mesh = data_mesh(jax.devices()[:4])
    check_divisible(8, mesh)
    with pytest.raises(ValueError, match="batch_size=6 must be divisible by the 4 dev"):
        check_divisible(6, mesh)
