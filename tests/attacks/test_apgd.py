"""APGD against a transcription with stored losses, tables and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustvit import losses
from robustvit.attacks import (
    APGD,
    TrainingAPGD,
    apgd,
    apgd_l1,
    first_step_size,
)
from robustvit.attacks.slots import deterministic
from robustvit.attacks.slots import run as run_slots
from robustvit.threat import ThreatModel
from tests.attacks import reference

B, K = 12, 6
X = np.random.default_rng(1).uniform(size=(B, 4, 4, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(3), B)
FORWARD = reference.mlp(K)
Y = np.asarray(FORWARD(X).argmax(-1), np.int32)
TARGET = np.asarray(np.argsort(FORWARD(X))[:, -2], np.int32)
ZERO = np.zeros(B, np.int32)
EPS = {"linf": 0.03, "l2": 0.15, "l1": 0.6}


def run(attack, norm, forward=FORWARD, eps=None, keys=KEYS):
    threat = ThreatModel(norm, EPS[norm] if eps is None else eps)
    attack = attack.resolve(norm, K)
    state = attack.start(X, Y, TARGET, ZERO, threat, keys)
    return jax.jit(
        lambda s: run_slots(
            attack, deterministic(forward), s, threat, steps=attack.steps + 3
        )
    )(state)


@pytest.mark.parametrize(
    ("norm", "loss"),
    [("linf", "cross_entropy"), ("linf", "targeted_dlr"), ("l2", "dlr")],
)
def test_streaming_equals_the_stored_table_bit_for_bit(norm, loss):
    """Same starts, same forward, one operation at a time: every iterate is equal."""
    steps, threat = 100, ThreatModel(norm, EPS[norm])
    attack = APGD(loss, steps=steps)
    x0 = np.clip(X + np.random.default_rng(2).normal(size=X.shape) * 0.01, 0, 1)
    x0 = jnp.asarray(x0, jnp.float32)
    of_logits = {
        "cross_entropy": lambda z: losses.cross_entropy(z, Y),
        "dlr": lambda z: losses.dlr(z, Y),
        "targeted_dlr": lambda z: losses.targeted_dlr(z, Y, TARGET),
    }[loss]
    with jax.disable_jit():
        evaluate = reference.value_and_grad(FORWARD, of_logits)
        x_broken, right, x_best, iterates = reference.apgd(
            evaluate, jnp.asarray(X), Y, x0, norm, threat.eps, steps
        )
        state = apgd.initial_state(X, Y, TARGET, x0, threat, KEYS)
        broken_at = np.full(B, -1)
        for i in range(steps + 1):
            np.testing.assert_array_equal(state.x_adv, iterates[i], err_msg=f"{i=}")
            state = attack.step(deterministic(FORWARD), state, threat)
            broken_at[np.asarray(state.broken) & (broken_at < 0)] = i
            if i < steps:  # the transcription moves on after a success: so do we
                stopped = state.done[:, None, None, None]
                x_adv = jnp.where(stopped, iterates[i + 1], state.x_adv)
                state = state.replace(x_adv=x_adv)
    np.testing.assert_array_equal(state.x_best, x_best)
    np.testing.assert_array_equal(broken_at < 0, right)
    assert (~right).any() and right.any()
    assert x_broken.shape == X.shape


def test_l2_scale_of_steps_is_that_of_the_paper():
    state = apgd.initial_state(X, Y, TARGET, X, ThreatModel("l2", 0.5), KEYS)
    np.testing.assert_allclose(state.step_size, 1.0)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (100, [21, 40, 56, 69, 79, 86, 92, 98]),
        (50, [10, 20, 29, 37, 44]),
        (40, [7, 14, 20, 25, 29, 32, 34, 36, 38]),
        (20, [3, 6, 8, *range(9, 20)]),
        (10, list(range(1, 10))),
        (2, [0, 1]),
    ],
)
def test_reviews(steps, expected):
    table = apgd.reviews(steps)
    # The reference counts moves from 0; the table is by moves done.
    np.testing.assert_array_equal(np.flatnonzero(table) - 1, expected)
    if steps == 100:
        assert table[table > 0].tolist() == [22, 19, 16, 13, 10, 7, 6, 6]


def test_stages_of_l1():
    table = apgd_l1.stages(100)
    ends = np.flatnonzero(table.last)
    assert ends.tolist() == [30, 61, 102]  # 30, 30 and 40 moves
    assert table.radius[[0, 31, 62]].tolist() == [3, 2, 1]
    assert table.review[:31].sum() == 30 and table.review[62:].sum() == 40
    long = apgd_l1.stages(334)  # the first stage has 101 moves, windows of 4
    assert np.flatnonzero(long.review)[:3].tolist() == [4, 8, 12]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_start_is_on_the_sphere_and_then_in_the_box(norm):
    inner = 0.25 + X / 2
    threat = ThreatModel(norm, EPS[norm])
    attack = APGD().resolve(norm, K)
    state = attack.start(inner, Y, TARGET, ZERO, threat, KEYS)
    distance = threat.distance(state.x_adv, inner)
    np.testing.assert_allclose(distance, EPS[norm], rtol=1e-4)
    state = attack.start(np.round(X), Y, TARGET, ZERO, threat, KEYS)
    assert (threat.distance(state.x_adv, np.round(X)) <= EPS[norm] + 1e-6).all()
    assert state.x_adv.min() >= 0 and state.x_adv.max() <= 1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_iterate_of_the_last_stage_is_in_the_threat_model(norm):
    state = run(APGD("targeted_dlr"), norm)
    assert state.done.all()
    outside = ThreatModel(norm, EPS[norm]).distance(state.x_adv, X) / EPS[norm]
    assert outside.max() <= 1 + 1e-5
    assert state.x_adv.min() >= 0 and state.x_adv.max() <= 1
    wrong = np.asarray(FORWARD(state.x_adv).argmax(-1) != Y)
    np.testing.assert_array_equal(wrong, state.broken)
    assert state.broken.any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_no_room_no_change(norm):
    state = run(APGD(steps=12), norm, eps=0.0)
    assert state.done.all() and not state.broken.any()
    np.testing.assert_allclose(state.x_adv, X, atol=1e-6)


def test_slots_count_for_themselves():
    """An example started in the middle of its neighbours' run sees no difference."""
    threat, attack = ThreatModel("linf", 0.02), APGD(steps=30).resolve("linf", K)
    forward = deterministic(FORWARD)
    fresh = attack.start(X, Y, TARGET, ZERO, threat, KEYS)
    whole = run_slots(attack, forward, fresh, threat, steps=31)
    state = run_slots(attack, forward, fresh, threat, steps=7)
    late = np.arange(B) % 2 == 0
    state = jax.tree.map(
        lambda a, b: jnp.where(late.reshape((B,) + (1,) * (a.ndim - 1)), a, b),
        fresh,
        state,
    )
    state = run_slots(attack, forward, state, threat, steps=31)
    np.testing.assert_array_equal(state.x_adv, whole.x_adv)
    np.testing.assert_array_equal(state.broken, whole.broken)


def test_gradients_of_random_forwards_are_averaged():
    noisy = 0.3 * jax.random.normal(jax.random.key(8), (64, *X.shape[1:]))

    def forward(x, keys):
        index = jax.vmap(lambda k: jax.random.randint(k, (), 0, 64))(keys)
        return FORWARD(x + noisy[index])

    def gradient(samples):
        return apgd.value_and_gradient(
            "cross_entropy", samples, forward, jnp.asarray(X), Y, TARGET, KEYS
        )[2]

    plain = jax.grad(lambda x: losses.cross_entropy(FORWARD(x), Y).sum())
    mean = np.mean([plain(jnp.asarray(X) + n) for n in noisy], 0)
    one, many = (float(jnp.abs(gradient(n) - mean).mean()) for n in (1, 100))
    assert many < 0.2 * one  # about 1 / sqrt(100)


def test_order_statistic_is_exact():
    values = np.abs(np.random.default_rng(0).normal(size=(40, 57))).astype(np.float32)
    values[:, :20] = 0.0
    index = np.random.default_rng(1).integers(0, 57, 40)
    found = apgd_l1.order_statistic(jnp.asarray(values), jnp.asarray(index))
    np.testing.assert_array_equal(found, np.sort(values, 1)[np.arange(40), index])


@pytest.mark.parametrize(
    ("norm", "loss", "classes", "chains", "resolved_loss"),
    [
        ("linf", "cross_entropy", 10, 1, "cross_entropy"),
        ("l1", "cross_entropy", 10, 5, "cross_entropy"),
        ("l2", "targeted_dlr", 1000, 9, "targeted_dlr"),
        ("l1", "targeted_dlr", 10, 5, "targeted_dlr"),
        ("linf", "targeted_dlr", 5, 4, "targeted_dlr"),
        ("linf", "targeted_dlr", 3, 2, "targeted_cross_entropy"),
        ("linf", "dlr", 2, 1, "cross_entropy"),
    ],
)
def test_budgets(norm, loss, classes, chains, resolved_loss):
    attack = APGD(loss).resolve(norm, classes)
    assert (attack.num_chains, attack.loss) == (chains, resolved_loss)
    ranks = [attack.rank(c) for c in range(chains)]
    assert ranks == (list(range(1, chains + 1)) if attack.targeted else [0] * chains)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD("ce"), "'ce' is not one of cross_entropy"),
        (lambda: APGD(steps=0), "steps=0 must be at least 1"),
        (lambda: APGD(restarts=0), "restarts=0"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("norm", "steps"), [("linf", 2), ("linf", 10), ("l2", 2)])
def test_trained_on_is_the_best_point_of_the_same_climb(norm, steps):
    threat = ThreatModel(norm, EPS[norm])
    attack = TrainingAPGD(steps, first_step_size(EPS[norm], steps))
    found = attack(
        lambda x: losses.cross_entropy(FORWARD(x), Y), jnp.asarray(X), threat, KEYS
    )
    state = apgd.initial_state(X, Y, TARGET, X, threat, KEYS)
    for _ in range(steps + 1):
        state = APGD(steps=steps).step(deterministic(FORWARD), state, threat)
    held = ~np.asarray(state.broken)  # an evaluation stops at the others
    assert held.any()
    np.testing.assert_allclose(found[held], state.x_best[held], atol=1e-6)
    better = losses.cross_entropy(FORWARD(found), Y)
    assert (better >= losses.cross_entropy(FORWARD(X), Y)).all()


def test_training_has_no_apgd_in_l1():
    attack = TrainingAPGD(2, 0.1)
    with pytest.raises(ValueError, match="linf and l2, got norm='l1'"):
        attack(lambda x: x.sum((1, 2, 3)), X, ThreatModel("l1", 1.0), KEYS)
