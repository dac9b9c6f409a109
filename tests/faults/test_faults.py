"""Twenty evaluations with one fault each, which must be named, and ten sound ones."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import robustvit as rv
from robustvit.evaluation import engine
from robustvit.parallel import data_mesh
from tests.faults import networks as nets

APGD = {"apgd-ce": rv.APGD(steps=15)}
LINF = rv.ThreatModel("linf", nets.EPS)


@dataclass(frozen=True)
class Case:
    """An evaluation: what `evaluate` is given."""

    forward: Any
    images: Any = dataclasses.field(default_factory=lambda: nets.IMAGES)
    labels: Any = dataclasses.field(default_factory=lambda: nets.LABELS)
    threat: rv.ThreatModel = LINF
    attacks: Mapping[str, Any] = dataclasses.field(default_factory=lambda: APGD)


def evaluate(case):
    return rv.evaluate(
        case.forward, case.images, case.labels, case.threat, case.attacks,
        batch_size=nets.N, progress=False,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Four virtual ones share two cores, and take longer to compile for."""
    monkeypatch.setattr(engine, "data_mesh", lambda *_: data_mesh(jax.devices()[:1]))


@pytest.fixture(autouse=True)
def trained_before_any_trace():
    nets.trained("tanh")
    nets.trained("relu", seed=1)


def tanh(x):
    return nets.trained("tanh")(x)


def normalised_images():
    return Case(nets.linear, images=(nets.IMAGES - 0.5) / 0.25)


def sawtooth(x):
    """Six steep teeth in every pixel level, too small to change a label."""
    return nets.linear(x + 0.002 * jnp.sin(x * 255 * 40))


def straight_through(x):
    """Seven grey levels, whose rounding the gradient does not see."""
    return nets.linear(x + jax.lax.stop_gradient(jnp.round(x * 7) / 7 - x))


def noisy(x):
    draw = jax.pure_callback(
        lambda: np.float32(np.random.normal()), jax.ShapeDtypeStruct((), jnp.float32)
    )
    return nets.linear(x) + draw * jnp.arange(nets.K)


def detached(x):
    hidden = jax.lax.stop_gradient(nets.trained("relu", seed=1)(x))
    return (tanh(x) + hidden) / 2


def without_gradient(x):
    return nets.linear(jax.lax.stop_gradient(x))


def coarse_in_other_batches(x):
    return nets.linear(x if len(x) == nets.N else jnp.round(x * 7) / 7)


def argmax_gate(x):
    """A hard answer wherever the model is not sure."""
    logits = tanh(x)
    sure = jax.nn.softmax(logits).max(-1, keepdims=True) > 0.999
    return jnp.where(sure, logits, jax.nn.one_hot(logits.argmax(-1), nets.K))


def nan_on_some(x):
    return nets.linear(x) + jnp.log(x.max((1, 2, 3)) - 0.57)[:, None]


def bfloat16(x):
    return nets.linear(x).astype(jnp.bfloat16)


class AroundAnotherCentre(rv.PGD):
    """Stays within eps of a shifted image."""

    def __call__(self, loss_fn, x, threat, keys):
        return super().__call__(loss_fn, jnp.clip(x + 0.05, 0, 1), threat, keys)


def of(forward) -> Callable[[], Case]:
    return lambda: Case(forward)


# name: (builder, warnings that must appear, or the text of an error)
FAULTS = {
    "softmax output": (of(lambda x: jax.nn.softmax(tanh(x))), {"softmax"}),
    "images normalised outside the model": (
        normalised_images, "normalisation belongs inside the model"),
    "BatchNorm in training mode": (
        lambda: Case(nets.tiny_batch_norm(train=True)), {"batch-dependent"}),
    "saturated logits": (of(lambda x: jnp.tanh(1e3 * tanh(x))), {"zero-gradient"}),
    "shattered gradients": (of(sawtooth), {"gradient-mismatch"}),
    "rounded input": (
        of(lambda x: nets.linear(jnp.round(x * 7) / 7)), {"zero-gradient"}),
    "straight-through rounding": (of(straight_through), {"gradient-mismatch"}),
    "eps divided by 255 twice": (
        lambda: Case(tanh, threat=rv.ThreatModel("linf", nets.EPS / 255)),
        {"eps-unit"}),
    "noise from the host": (
        lambda: Case(noisy, attacks={"square": rv.Square(queries=20)}),
        {"randomized"}),
    "detached ensemble member": (of(detached), {"gradient-mismatch"}),
    "logits times 10,000": (of(lambda x: 1e4 * tanh(x)), {"saturated"}),
    "one-hot answer": (
        of(lambda x: jax.nn.one_hot(tanh(x).argmax(-1), nets.K)), {"zero-gradient"}),
    "labels of another order": (
        lambda: Case(tanh, labels=(nets.LABELS + 1) % nets.K), {"chance"}),
    "clipped logits": (
        of(lambda x: jnp.clip(1e3 * tanh(x), -1, 1)), {"zero-gradient"}),
    "attack stopped early": (
        lambda: Case(tanh, attacks={"pgd": rv.LabelAttack(rv.PGD(2, nets.EPS / 8))}),
        {"unfinished"}),
    "budget around another centre": (
        lambda: Case(tanh, attacks={
            "pgd": rv.LabelAttack(AroundAnotherCentre(2, nets.EPS))}),
        "left the threat model"),
    "NaN on some images": (of(nan_on_some), "logits are not finite"),
    "batch mean subtracted": (
        of(lambda x: nets.linear(x - x.mean(0) + nets.CENTRES.mean(0))),
        {"batch-dependent"}),
    "hard answer unless sure": (of(argmax_gate), {"zero-gradient"}),
    "logits in bfloat16": (of(bfloat16), {"low-precision"}),
}  # fmt: skip


# Beyond the twenty: what only a comparison shows, of attacks or of batch sizes.
FAULTS |= {
    "masked, but Square sees through": (
        lambda: Case(without_gradient, threat=rv.ThreatModel("linf", 0.06),
                     attacks={**APGD, "square": rv.Square(200)}),
        {"square-improves", "gradient-mismatch"}),
    "another label at another batch size": (
        of(coarse_in_other_batches), {"audit", "batch-dependent"}),
}  # fmt: skip


def xcit():
    forward = nets.xcit()
    images = np.random.default_rng(1).uniform(size=(24, 8, 8, 3)).astype(np.float32)
    labels = np.asarray(jax.jit(forward)(images).argmax(-1))
    return Case(forward, images, labels, rv.ThreatModel("linf", 1 / 255))


def batch_norm():
    forward = nets.tiny_batch_norm()
    labels = np.asarray(forward(nets.IMAGES).argmax(-1))
    return Case(forward, labels=labels, threat=rv.ThreatModel("linf", 1 / 255))


def randomised():
    def draw(x, key):
        return nets.linear(x + 0.02 * jax.random.normal(key, x.shape))

    attacks = {"apgd-ce": rv.APGD(steps=15, samples=3)}
    return Case(rv.Randomized(draw), attacks=attacks)


def in_l2_with_every_attack():
    attacks = {
        "apgd-ce": rv.APGD(steps=15),
        "apgd-t": rv.APGD("targeted_dlr", steps=15, targets=2),
        "fab-t": rv.FAB(steps=15, targets=2),
        "square": rv.Square(queries=60),
    }
    return Case(tanh, threat=rv.ThreatModel("l2", 0.2), attacks=attacks)


SOUND = {
    "linear": of(nets.linear),
    "tanh, l2, four attacks": in_l2_with_every_attack,
    "relu": lambda: Case(nets.trained("relu")),
    "gelu": lambda: Case(nets.trained("gelu")),
    "convolutions": lambda: Case(nets.trained("cnn")),
    "robust tanh": lambda: Case(nets.trained("tanh", eps=nets.EPS)),
    "BatchNorm in evaluation mode": batch_norm,
    "xcit": xcit,
    "ensemble": of(lambda x: (tanh(x) + nets.trained("relu", seed=1)(x)) / 2),
    "randomised, averaged": randomised,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name):
    build, expected = FAULTS[name]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            evaluate(build())
        return
    found = {warning.name for warning in evaluate(build()).warnings}
    assert expected <= found, found


SLOW = {"xcit"}  # to compile
MARKED = [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SOUND]


@pytest.mark.parametrize("name", MARKED)
def test_a_sound_evaluation_raises_no_alarm(name):
    report = evaluate(SOUND[name]())
    assert report.warnings == ()
    assert report.robust_accuracy > 0
