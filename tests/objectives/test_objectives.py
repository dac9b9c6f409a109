"""The objectives against their formulas, written out by hand on a tiny network."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustvit.attacks import PGD
from robustvit.objectives import OBJECTIVES, adversarial, standard, trades
from robustvit.threat import ThreatModel
from robustvit.types import Objective, Perturbed, TrainState
from tests.tiny import TinyNet

THREAT = ThreatModel("linf", 0.1)
ATTACK = PGD(steps=3, step_size=0.05)
ATTACK_BN = ("eval", "train", "train_update")


@pytest.fixture(scope="module")
def batch():
    return {
        "image": jax.random.uniform(jax.random.key(5), (6, 4, 4, 3)),
        "label": jnp.arange(6) % 5,
        "index": jnp.arange(6),
        "mask": jnp.ones(6, bool),
    }


def make_state(model, batch):
    variables = model.init(jax.random.key(0), batch["image"])
    stats = jax.tree.map(lambda x: x + 0.1, variables["batch_stats"])
    return TrainState(
        step=jnp.array(0),
        params=variables["params"],
        batch_stats=stats,
        opt_state=(),
        ema={},
        key=jax.random.key(1),
    )


def forward(state, images, train=False):
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    outputs, new = TinyNet().apply(
        variables, images, train=train, mutable=["batch_stats"]
    )
    return outputs.logits, state.replace(batch_stats=new["batch_stats"])


def log_p(logits):
    return jax.nn.log_softmax(logits)


def nll(logits, labels):
    return -log_p(logits)[jnp.arange(len(labels)), labels]


KEY = jax.random.key(9)


def test_standard(batch):
    state = make_state(TinyNet(), batch)
    objective = standard(TinyNet(), label_smoothing=0.1)
    assert objective.perturb(state, batch, THREAT, KEY) is batch["image"]
    loss, (stats, metrics) = objective.loss(
        state.params, state, batch, batch["image"], KEY
    )
    logits, moved = forward(state, batch["image"], train=True)
    expected = 0.9 * nll(logits, batch["label"]) - 0.1 * log_p(logits).mean(-1)
    assert loss == pytest.approx(float(expected.mean()), rel=1e-5)
    chex.assert_trees_all_close(stats, moved.batch_stats, rtol=1e-5)
    right = (logits.argmax(-1) == batch["label"]).mean()
    assert metrics["clean_accuracy"] == right


def test_attack_raises_the_loss_in_evaluation_mode(batch):
    state = make_state(TinyNet(), batch)
    x_adv = adversarial(TinyNet(), ATTACK).perturb(state, batch, THREAT, KEY)
    assert THREAT.distance(x_adv, batch["image"]).max() <= 0.1 + 1e-6
    before = nll(forward(state, batch["image"])[0], batch["label"])
    after = nll(forward(state, x_adv)[0], batch["label"])
    assert (after > before).all()


def test_targeted_attack_raises_the_drawn_classes(batch):
    state = make_state(TinyNet(), batch)
    objective = adversarial(TinyNet(), ATTACK, attack_loss="targeted")
    x_adv = objective.perturb(state, batch, THREAT, KEY)
    targets = jax.random.randint(jax.random.split(KEY)[0], (6,), 0, 5)
    before, after = (
        nll(forward(state, x)[0], targets) for x in (batch["image"], x_adv)
    )
    assert (after < before).all()


@pytest.mark.parametrize("clean_forward", ["none", "metrics", "update"])
def test_adversarial_loss(batch, clean_forward):
    state = make_state(TinyNet(), batch)
    objective = adversarial(TinyNet(), ATTACK, clean_forward=clean_forward)
    x_adv = batch["image"] + 0.05
    loss, (stats, metrics) = objective.loss(state.params, state, batch, x_adv, KEY)

    logits, _ = forward(state, x_adv, train=True)
    expected = 0.9 * nll(logits, batch["label"]) - 0.1 * log_p(logits).mean(-1)
    assert loss == pytest.approx(float(expected.mean()), rel=1e-5)
    after = state
    if clean_forward == "update":  # the clean images come first
        _, after = forward(after, batch["image"], train=True)
    _, after = forward(after, x_adv, train=True)
    chex.assert_trees_all_close(stats, after.batch_stats, rtol=1e-5)
    assert ("clean_accuracy" in metrics) == (clean_forward != "none")


def test_clean_forward_gives_no_gradient(batch):
    state = make_state(TinyNet(), batch)
    x_adv = batch["image"] + 0.05

    def gradient(clean_forward):
        objective = adversarial(TinyNet(), ATTACK, clean_forward=clean_forward)
        loss = lambda p: objective.loss(p, state, batch, x_adv, KEY)[0]  # noqa: E731
        return jax.grad(loss)(state.params)

    chex.assert_trees_all_close(gradient("none"), gradient("update"), rtol=1e-5)


def test_trades_loss_and_its_gradient_through_both_arguments(batch):
    state = make_state(TinyNet(), batch)
    objective = trades(TinyNet(), ATTACK, beta=6.0)
    x_adv = batch["image"] + 0.05

    def expected(params):
        here = state.replace(params=params)
        clean, _ = forward(here, batch["image"], train=True)
        robust, _ = forward(here, x_adv, train=True)
        p = jnp.exp(log_p(clean))
        kl = (p * (log_p(clean) - log_p(robust))).sum(-1)
        return nll(clean, batch["label"]).mean() + 6 * kl.mean()

    def ours(params):
        return objective.loss(params, state, batch, x_adv, KEY)[0]

    value, gradient = jax.value_and_grad(ours)(state.params)
    wanted, wanted_gradient = jax.value_and_grad(expected)(state.params)
    assert value == pytest.approx(float(wanted), rel=1e-5)
    chex.assert_trees_all_close(gradient, wanted_gradient, rtol=1e-3, atol=1e-5)
    _, (_, metrics) = objective.loss(state.params, state, batch, x_adv, KEY)
    assert {"clean_accuracy", "robust_accuracy"} <= set(metrics)


def test_trades_attack_raises_the_divergence(batch):
    state = make_state(TinyNet(), batch)
    x_adv = trades(TinyNet(), ATTACK).perturb(state, batch, THREAT, KEY)
    clean, robust = (log_p(forward(state, x)[0]) for x in (batch["image"], x_adv))
    start = THREAT.random_start(batch["image"], jax.random.split(KEY, 6))
    random = log_p(forward(state, start)[0])
    kl = lambda q: (jnp.exp(clean) * (clean - q)).sum(-1)  # noqa: E731
    assert (kl(robust) > kl(random)).all()


@pytest.mark.parametrize("build", [adversarial, trades])
@pytest.mark.parametrize("mode", ATTACK_BN)
def test_batch_norm_modes_of_the_attack(batch, build, mode):
    state = make_state(TinyNet(), batch)
    x_adv = build(TinyNet(), ATTACK, attack_bn=mode).perturb(state, batch, THREAT, KEY)
    if mode != "train_update":
        assert x_adv.shape == batch["image"].shape
        return
    assert isinstance(x_adv, Perturbed)
    # 0.9 of the distance to the batch's statistics is left after each forward; all
    # iterates have nearly the same statistics, so count forwards by the variance.
    forwards = ATTACK.steps + (build is trades)
    before = state.batch_stats["bn"]["var"]
    _, once = forward(state, x_adv.images, train=True)
    target = before + (once.batch_stats["bn"]["var"] - before) / 0.1
    left = (x_adv.batch_stats["bn"]["var"] - target) / (before - target)
    np.testing.assert_allclose(left, 0.9**forwards, atol=0.03)


def test_paper_mode_statistics_reach_the_loss(batch):
    state = make_state(TinyNet(), batch)
    objective = adversarial(
        TinyNet(), ATTACK, attack_bn="train_update", clean_forward="update"
    )
    perturbed = objective.perturb(state, batch, THREAT, KEY)
    _, (stats, _) = objective.loss(state.params, state, batch, perturbed, KEY)
    after = state.replace(batch_stats=perturbed.batch_stats)
    _, after = forward(after, batch["image"], train=True)
    _, after = forward(after, perturbed.images, train=True)
    chex.assert_trees_all_close(stats, after.batch_stats, rtol=1e-5)


def test_train_mode_draws_fresh_dropout_at_every_step(batch):
    """With a one-step attack repeated from the same key, and with another key."""
    model = TinyNet(dropout=0.5)
    state = make_state(model, batch)
    objective = adversarial(model, PGD(1, 0.1, random_start=False), attack_bn="train")
    one = objective.perturb(state, batch, THREAT, KEY)
    np.testing.assert_array_equal(one, objective.perturb(state, batch, THREAT, KEY))
    other = objective.perturb(state, batch, THREAT, jax.random.key(10))
    assert not np.allclose(one, other)


def test_attacks_take_no_parameter_gradients(batch):
    """The jaxpr of `perturb` computes as much as FLOPs of input gradients need."""
    state = make_state(TinyNet(), batch)
    for build, forwards in ((adversarial, 5), (trades, 9)):
        assert build(TinyNet(), PGD(1, 0.1)).forwards == forwards
    assert adversarial(TinyNet(), PGD(1, 0.1), clean_forward="metrics").forwards == 6
    jaxpr = jax.make_jaxpr(adversarial(TinyNet(), PGD(1, 0.1)).perturb)(
        state, batch, THREAT, KEY
    )
    kernel = state.params["conv"]["kernel"].shape
    scan = next(e for e in jaxpr.eqns if e.primitive.name == "scan")
    convolutions = [
        e.outvars[0].aval.shape
        for e in scan.params["jaxpr"].eqns
        if e.primitive.name == "conv_general_dilated"
    ]
    assert len(convolutions) == 2 and kernel not in convolutions


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_gives_finite_gradients(name, batch):
    state = make_state(TinyNet(), batch)
    objective = OBJECTIVES[name](TinyNet(), ATTACK)
    assert isinstance(objective, Objective)
    x_adv = objective.perturb(state, batch, THREAT, KEY)
    grads = jax.grad(lambda p: objective.loss(p, state, batch, x_adv, KEY)[0])(
        state.params
    )
    chex.assert_tree_all_finite(grads)


@pytest.mark.parametrize(
    ("build", "args", "message"),
    [
        (adversarial, {"attack_bn": "off"}, "attack_bn='off' is not one of eval"),
        (adversarial, {"clean_forward": "yes"}, "clean_forward='yes'"),
        (adversarial, {"attack_loss": "dlr"}, "attack_loss='dlr'"),
        (trades, {"attack_bn": "off"}, "attack_bn='off'"),
        (trades, {"beta": -1.0}, r"beta=-1\.0 must not be negative"),
    ],
)
def test_wrong_options_are_refused(build, args, message):
    with pytest.raises(ValueError, match=message):
        build(TinyNet(), ATTACK, **args)
