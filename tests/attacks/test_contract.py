"""What every entry of ATTACKS must do, in every norm."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustvit.attacks import ATTACKS, PGD, LabelAttack, light_step_size
from robustvit.attacks.label_attack import wrong_classes
from robustvit.threat import NORMS, ThreatModel

EPS = {"linf": 0.05, "l2": 0.5, "l1": 2.0}
ARGUMENTS = {
    "fgsm": lambda eps: {"step_size": 2 * eps},
    # Enough steps to cross the ball, short enough for the accuracy of l1 (see threat).
    "pgd": lambda eps: {"steps": 300, "step_size": eps / 80},
    "apgd": lambda eps: {"steps": 60, "step_size": 2 * eps},
}
CASES = [(name, norm) for name in ATTACKS for norm in NORMS]
CASES.remove(("apgd", "l1"))

X = jax.random.uniform(jax.random.key(0), (8, 3, 3, 3), minval=0.2, maxval=0.8)
WEIGHTS = jax.random.normal(jax.random.key(1), X.shape[1:])
KEYS = jax.random.split(jax.random.key(2), 8)


def linear(x):
    return jnp.sum(WEIGHTS * x, (1, 2, 3))


def make(name, norm):
    return ATTACKS[name](**ARGUMENTS[name](EPS[norm])), ThreatModel(norm, EPS[norm])


def test_every_attack_is_under_contract():
    assert set(ARGUMENTS) == set(ATTACKS)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_result_is_inside_float32_and_repeatable(name, norm):
    attack, threat = make(name, norm)
    x_adv = attack(linear, X, threat, KEYS)
    assert x_adv.dtype == jnp.float32
    assert threat.distance(x_adv, X).max() <= EPS[norm] + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    np.testing.assert_array_equal(x_adv, attack(linear, X, threat, KEYS))
    jitted = jax.jit(lambda x, k: attack(linear, x, threat, k))(X, KEYS)
    np.testing.assert_allclose(jitted, x_adv, atol=1e-5)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_eps_zero_is_the_identity(name, norm):
    attack, _ = make(name, norm)
    x_adv = attack(linear, X, ThreatModel(norm, 0.0), KEYS)
    np.testing.assert_allclose(x_adv, X, atol=1e-7)


# One step from a random start reaches the optimum only in linf.
@pytest.mark.parametrize(
    ("name", "norm"),
    [case for case in CASES if case not in {("fgsm", "l2"), ("fgsm", "l1")}],
)
def test_linear_optimum(name, norm):
    """The best a linear function can be raised by is eps times its dual norm."""
    attack, threat = make(name, norm)
    gain = linear(attack(linear, X, threat, KEYS)) - linear(X)
    size = jnp.abs(WEIGHTS).ravel()
    # In l1 the box binds: pixels are filled in order of |weight|.
    if norm == "l1":
        order = jnp.argsort(-size)
        room = jnp.where(WEIGHTS > 0, 1 - X, X).reshape(8, -1)[:, order]
        spent = jnp.cumsum(room, 1)
        fill = jnp.clip(EPS[norm] - (spent - room), 0, room)
        best = fill @ size[order]
    else:
        dual = size.sum() if norm == "linf" else jnp.sqrt(jnp.square(size).sum())
        best = jnp.full(8, EPS[norm] * dual)
    np.testing.assert_allclose(gain, best, rtol=5e-3)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_examples_do_not_see_each_other(name, norm):
    attack, threat = make(name, norm)
    whole = attack(linear, X, threat, KEYS)
    halves = [attack(linear, X[i : i + 4], threat, KEYS[i : i + 4]) for i in (0, 4)]
    np.testing.assert_allclose(whole, jnp.concatenate(halves), atol=1e-6)


def test_fgsm_is_one_step_of_pgd_and_step_sizes_are_absolute():
    threat = ThreatModel("linf", 0.05)
    fgsm = ATTACKS["fgsm"](0.02, random_start=False)
    np.testing.assert_allclose(
        fgsm(linear, X, threat, KEYS), X + 0.02 * jnp.sign(WEIGHTS), atol=1e-7
    )
    assert fgsm == PGD(steps=1, step_size=0.02, random_start=False)


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 6 / 255), (2, 3 / 255), (10, 0.6 / 255)]
)
def test_light_recipe_step(steps, expected):
    assert light_step_size(4 / 255, steps) == pytest.approx(expected)


def test_more_steps_do_not_make_a_larger_program():
    def size(steps):
        attack, threat = PGD(steps, 0.01), ThreatModel("linf", 0.05)
        jaxpr = jax.make_jaxpr(lambda x, k: attack(linear, x, threat, k))(X, KEYS)
        return len(str(jaxpr))

    assert size(10) <= size(2) + 20  # the trip count has a digit more


def test_the_loss_is_traced_once_for_any_number_of_steps():
    traced = chex.assert_max_traces(n=1)(linear)
    PGD(10, 0.01)(traced, X, ThreatModel("linf", 0.05), KEYS)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: PGD(0, 0.1), "at least 1 step, got steps=0"),
        (lambda: PGD(1, -0.1), "must not be negative"),
        (lambda: LabelAttack(PGD(1, 0.1), loss="ce"), "'ce' is not one of"),
        (lambda: LabelAttack(PGD(1, 0.1), restarts=0), "at least 1"),
    ],
)
def test_wrong_arguments_are_refused(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()


@pytest.mark.parametrize(
    "loss", ["cross_entropy", "margin", "dlr", "targeted_cross_entropy"]
)
def test_label_attacks_break_a_linear_classifier_as_far_as_possible(loss):
    """Robust in linf iff each margin exceeds eps |w_y - w_j|_1; exact for two."""
    weights = jnp.stack([WEIGHTS, -WEIGHTS, 0 * WEIGHTS], -1)

    def forward(x):
        # A third class, never near, for the losses that need one.
        return jnp.tensordot(x - 0.5, weights, 3) - jnp.array([0.0, 0.0, 100.0])

    labels = forward(X).argmax(-1)
    threat = ThreatModel("linf", 0.02)
    attack = LabelAttack(PGD(10, 0.01), loss, restarts=1)
    broken = jnp.zeros(8, bool)
    for restart in range(4):  # a target may be the hopeless class
        keys = jax.vmap(jax.random.fold_in, (0, None))(KEYS, restart)
        x_adv = attack(forward, X, labels, threat, keys)
        broken |= forward(x_adv).argmax(-1) != labels
    margin = 2 * jnp.abs(linear(X - 0.5))
    expected = margin < 0.02 * 2 * jnp.abs(WEIGHTS).sum()
    assert 0 < expected.sum() < 8
    np.testing.assert_array_equal(broken, expected)


def test_wrong_classes_are_wrong_and_uniform():
    labels = jnp.arange(3000) % 5
    targets = wrong_classes(jax.random.split(jax.random.key(0), 3000), labels, 5)
    assert not (targets == labels).any()
    shifts = np.bincount((targets - labels) % 5, minlength=5)
    assert shifts[0] == 0 and shifts[1:].min() > 650
