"""FAB against sorting, numpy in float64, and known distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustvit.attacks import FAB
from robustvit.attacks.fab_projections import onto_plane
from robustvit.attacks.slots import deterministic
from robustvit.attacks.slots import run as run_slots
from robustvit.threat import ThreatModel
from tests.attacks import reference

B, K = 10, 5
RNG = np.random.default_rng(0)
X = RNG.uniform(0.1, 0.9, size=(B, 4, 4, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), B)
ZERO = np.zeros(B, np.int32)
NORMS = ("linf", "l2", "l1")


def run(attack, forward, x, y, target, norm, *, chain=ZERO, eps=0.0):
    threat = ThreatModel(norm, eps)
    state = attack.start(x, y, target, chain, threat, KEYS[: len(x)])
    return jax.jit(
        lambda s: run_slots(
            attack, deterministic(forward), s, threat, steps=attack.steps + 2
        )
    )(state)


@pytest.mark.parametrize("norm", NORMS)
def test_moves_onto_planes_equal_the_sorted_solution(norm):
    x = RNG.uniform(size=(40, 4, 4, 3)).astype(np.float32)
    x[:10] = np.round(x[:10])  # on the walls
    w = RNG.normal(size=x.shape).astype(np.float32)
    w[:, 0, 0] = 0.0
    # From planes near by to planes out of reach, on both sides.
    gap = (RNG.normal(size=40) * 10.0 ** RNG.uniform(-3, 1, 40)).astype(np.float32)
    gap[10:12] = 100.0, -100.0
    move = np.asarray(onto_plane(x, w, gap, norm)).reshape(40, -1)
    flat_x, flat_w = x.reshape(40, -1), w.reshape(40, -1)
    plane = (flat_w.astype(np.float64) * flat_x).sum(1) - gap
    expected = reference.move_sorted(flat_x, flat_w, plane, norm)
    np.testing.assert_allclose(move, expected, atol=5e-6)
    reach = np.where(flat_w * np.sign(gap)[:, None] > 0, flat_x, 1 - flat_x)
    reachable = (np.abs(flat_w) * reach).sum(1) > 1.01 * np.abs(gap)
    assert 10 < reachable.sum() < 40
    gained = (flat_w * move).sum(1)[reachable]
    np.testing.assert_allclose(gained, -gap[reachable], rtol=1e-5, atol=1e-6)
    assert ((x.reshape(40, -1) + move) > -1e-6).all()


@pytest.mark.parametrize(
    ("norm", "move"), [("linf", (1, -1)), ("l1", (0, -1.5)), ("l2", (0.6, -1.2))]
)
def test_the_worked_example(norm, move):
    """w=(1,-2) and gap -.5 at (.5,.5): the moves are known on paper."""
    x = np.full((1, 1, 1, 3), 0.5, np.float32)
    w = np.array([1, -2, 0], np.float32).reshape(x.shape)
    found = onto_plane(x, w, np.array([-0.5], np.float32), norm)[0, 0, 0, :2]
    np.testing.assert_allclose(found, np.array(move) / 6, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_equals_the_sorted_transcription(norm):
    forward = reference.mlp(K)
    y = np.asarray(forward(X).argmax(-1), np.int32)
    target = np.asarray(np.argsort(forward(X))[:, -2], np.int32)
    rows = np.arange(B)

    evaluate = jax.jit(
        reference.value_and_grad(forward, lambda z: z[rows, target] - z[rows, y])
    )
    best, distance, path = reference.fab(evaluate, X, y, norm, 100)
    attack = FAB(targets=1)
    threat = ThreatModel(norm, 0.0)
    state = attack.start(X, y, target, ZERO, threat, KEYS)
    step = jax.jit(lambda s: attack.step(deterministic(forward), s, threat))
    for i in range(10):
        state = step(state)
        np.testing.assert_allclose(state.x_now, path[i], atol=1e-5)
    state = run(attack, forward, X, y, target, norm)
    assert np.isfinite(distance).sum() > B / 2
    np.testing.assert_array_equal(np.isfinite(state.distance), np.isfinite(distance))
    np.testing.assert_allclose(state.distance, distance, rtol=1e-4)
    np.testing.assert_allclose(state.x_adv, best, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", [FAB(targets=1), FAB(targets=0)])
def test_distance_on_a_linear_model(norm, attack):
    """The nearest boundary, half a per cent further (the overshoot's last bit)."""
    weights = RNG.normal(size=(4, 4, 3, K)).astype(np.float32)

    def forward(x):
        return jnp.tensordot(x - 0.5, weights, 3)

    x = np.random.default_rng(5).uniform(0.45, 0.55, X.shape).astype(np.float32)
    logits = np.asarray(forward(x))
    y = logits.argmax(-1).astype(np.int32)
    flat = weights.reshape(-1, K)
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    reach = np.linalg.norm(flat[:, y][..., None] - flat[:, None], dual, axis=0)
    gaps = logits[np.arange(B), y][:, None] - logits
    radius = np.where(gaps > 0, gaps / np.maximum(reach, 1e-9), np.inf)
    if norm == "l1":  # there the box binds: a pixel moves by .45 at the least
        radius = np.where(radius < 0.4, radius, np.inf)
    target = radius.argmin(1).astype(np.int32)
    sure = np.isfinite(radius.min(1))
    state = run(attack, forward, x, y, target, norm)
    ratio = (np.asarray(state.distance) / radius.min(1))[sure]
    assert sure.sum() >= 5
    assert (ratio > 1.0).all() and (ratio < 1.006).all()


def test_done_as_soon_as_within_eps():
    forward = reference.mlp(K)
    y = np.asarray(forward(X).argmax(-1), np.int32)
    target = np.asarray(np.argsort(forward(X))[:, -2], np.int32)
    attack = FAB(targets=1)
    nearest = np.asarray(run(attack, forward, X, y, target, "l2").distance)
    eps = float(np.median(nearest))
    state = run(attack, forward, X, y, target, "l2", eps=eps)
    np.testing.assert_array_equal(state.broken, nearest <= eps)
    broken = np.asarray(state.broken)
    assert (np.asarray(state.it)[broken] < 100).all()
    wrong = np.asarray(forward(state.x_adv).argmax(-1) != y)
    assert wrong[broken].all()
    assert (ThreatModel("l2", eps).distance(state.x_adv, X)[broken] <= eps).all()


def test_restarts_begin_elsewhere_within_half_of_eps():
    attack = FAB(targets=0, restarts=3).resolve("l1", K)
    for norm in NORMS:
        threat = ThreatModel(norm, 0.1)
        first = attack.start(X, ZERO, ZERO, ZERO, threat, KEYS)
        later = attack.start(X, ZERO, ZERO, ZERO + 1, threat, KEYS)
        np.testing.assert_array_equal(first.x_now, X)
        np.testing.assert_allclose(threat.distance(later.x_now, X), 0.05, rtol=1e-3)


def test_budgets_and_wrong_arguments():
    assert FAB().resolve("linf", 1000).num_chains == 9
    assert FAB().resolve("linf", 3).num_chains == 2
    assert FAB(targets=0, restarts=5).resolve("l2", 3).num_chains == 5
    with pytest.raises(ValueError, match="would be the same run"):
        FAB(targets=9, restarts=5)
    with pytest.raises(ValueError, match="wanted targets >= 0"):
        FAB(steps=0)
