"""AutoAttack end to end: closed forms, recorded runs, invariances, kill and resume."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import robustvit as rv
from robustvit.evaluation import engine
from robustvit.evaluation.slots import even_size
from robustvit.parallel import data_mesh
from tests.attacks import reference
from tests.conftest import SHARED
from tests.evaluation import resumed

RNG = np.random.default_rng(0)
N, K = 40, 10
WEIGHTS = RNG.normal(size=(5, 5, 3, K)).astype(np.float32)
IMAGES = RNG.uniform(0.45, 0.55, size=(N, 5, 5, 3)).astype(np.float32)


def linear(images):
    return jnp.tensordot(images - 0.5, WEIGHTS, 3)


LABELS = np.array(linear(IMAGES).argmax(-1))


def short(queries=60, steps=15):
    """Standard AutoAttack, with fewer steps."""
    return {
        "apgd-ce": rv.APGD(steps=steps),
        "apgd-t": rv.APGD("targeted_dlr", steps=steps),
        "fab-t": rv.FAB(steps=steps),
        "square": rv.Square(queries=queries),
    }


def exact_radius(norm):
    """Distance to the nearest boundary in the dual norm (the box is inactive)."""
    logits = np.asarray(linear(IMAGES))
    gap = logits[np.arange(N), LABELS][:, None] - logits
    flat = WEIGHTS.reshape(-1, K)
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    reach = np.linalg.norm(flat[:, LABELS][..., None] - flat[:, None], dual, axis=0)
    others = np.arange(K) != LABELS[:, None]
    return np.where(others, gap / np.where(others, reach, 1.0), np.inf).min(1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_linear_models_have_exactly_known_robustness(norm):
    radius = exact_radius(norm)
    eps = float(np.median(radius))
    assert norm != "l1" or eps < 0.4  # where the box does not bind
    attacks = short(steps=100)
    threat = rv.ThreatModel(norm, eps)
    report = rv.evaluate(linear, IMAGES, LABELS, threat, attacks, progress=False)
    sure = np.abs(radius / eps - 1) > 0.01
    assert sure.sum() >= N - 4 and 0.1 < (radius > eps).mean() < 0.9
    np.testing.assert_array_equal(report.robust[sure], (radius > eps)[sure])
    assert report.warnings == ()
    assert (threat.distance(report.x_adv, IMAGES) <= eps * (1 + 1e-6) + 1e-6).all()


def test_slots_and_devices_change_nothing(monkeypatch):
    forward = reference.mlp(K, IMAGES.shape[1:])
    images = RNG.uniform(size=(20, *IMAGES.shape[1:])).astype(np.float32)
    labels = np.asarray(forward(images).argmax(-1))
    threat = rv.ThreatModel("l2", 0.25)

    attacks = short(queries=20, steps=8)
    attacks.pop("apgd-ce")  # the same machine as apgd-t

    def look(batch_size):
        report = rv.evaluate(
            forward, images, labels, threat, attacks, batch_size=batch_size,
            progress=False, seed=3,
        )  # fmt: skip
        return report.broken_by

    many = look(64)
    assert len(set(many.tolist())) > 1
    monkeypatch.setattr(engine, "data_mesh", lambda *_: data_mesh(jax.devices()[:1]))
    for batch_size in (1, 7, 64):  # on one device; above there were four
        np.testing.assert_array_equal(look(batch_size), many)


def test_even_rounds():
    assert even_size(64, 330, 9, 1) == 64  # 2970 chains in 47 rounds
    assert even_size(64, 65, 1, 1) == 33
    assert even_size(64, 10, 9, 4) == 12
    assert even_size(64, 0, 9, 4) == 4


def test_killed_and_resumed_gives_the_same_report(tmp_path):
    """kill -9 in the middle, twice; then compare with a run that was left alone."""
    whole = resumed.run(tmp_path / "whole")
    command = [sys.executable, "-m", "tests.evaluation.resumed", str(tmp_path / "cut")]
    for _ in range(2):
        process = subprocess.Popen(command, env={**os.environ, "SLOW_STEPS": "1"})
        state = tmp_path / "cut" / "state.npz"
        start, seen = time.monotonic(), state.exists() and state.stat().st_mtime_ns
        while time.monotonic() - start < 120 and process.poll() is None:
            time.sleep(0.2)
            if state.exists() and state.stat().st_mtime_ns != seen:
                break
        time.sleep(1.0)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / "cut" / "state.json").exists()
    again = resumed.run(tmp_path / "cut")
    for name in ("broken_by", "x_adv", "adversarial_predictions"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert again.warnings == whole.warnings


def test_another_question_is_refused_with_the_difference(tmp_path):
    threat, attacks = rv.ThreatModel("linf", 0.01), {"apgd-ce": rv.APGD(steps=3)}

    def ask(forward=linear, images=IMAGES, threat=threat, attacks=attacks, seed=0):
        rv.evaluate(
            forward, images, LABELS, threat, attacks, seed=seed, progress=False,
            state_dir=tmp_path / "state",
        )  # fmt: skip

    ask()
    ask()  # the same question is answered from the folder
    other = {"apgd-ce": rv.APGD(steps=4)}
    for change, message in (
        ({"seed": 1}, r"seed: 0 -> 1"),
        ({"threat": rv.ThreatModel("linf", 0.02)}, r"threat.eps: 0.01 -> 0.02"),
        ({"attacks": other}, r"attacks.apgd-ce.steps: 3 -> 4"),
        ({"images": IMAGES[::-1]}, r"data: \w+ -> \w+"),
        ({"forward": lambda x: 2 * linear(x)}, r"model: \w+ -> \w+"),
    ):
        with pytest.raises(
            ValueError, match=f"holds another evaluation.*\n  {message}"
        ):
            ask(**change)


def names(forward, labels=LABELS, attacks=None, eps=0.01, images=IMAGES, **options):
    report = rv.evaluate(
        forward, images, labels, rv.ThreatModel("linf", eps),
        attacks or {"apgd-ce": rv.APGD(steps=5)}, progress=False, **options,
    )  # fmt: skip
    saved = json.loads(json.dumps(report.to_dict()))
    assert [w["name"] for w in saved["warnings"]] == [w.name for w in report.warnings]
    assert all(w.name in str(report) for w in report.warnings)
    return {w.name for w in report.warnings}


def test_warnings_name_what_is_wrong():
    assert names(linear) == set()
    assert names(lambda x: jax.nn.softmax(linear(x))) == {"softmax"}
    assert "zero-gradient" in names(lambda x: linear(jnp.round(x * 10) / 10))
    assert "batch-dependent" in names(lambda x: linear(x - x.mean(0) + 0.5))
    constant = names(
        lambda x: 0 * linear(x) + jnp.arange(K), labels=0 * LABELS + K - 1,
        attacks=short(),
    )  # fmt: skip
    assert constant == {"zero-gradient", "plateau"} or constant == {"zero-gradient"}
    few = names(
        lambda x: linear(x)[:, :3], labels=np.asarray(linear(IMAGES)[:, :3].argmax(-1)),
        attacks=short(queries=3, steps=3),
    )  # fmt: skip
    assert "few-classes" in few

    def noisy(images):
        draw = jax.pure_callback(
            lambda: np.float32(np.random.normal()),
            jax.ShapeDtypeStruct((), jnp.float32),
        )
        return linear(images) + draw * jnp.arange(K)

    assert "randomized" in names(noisy, attacks={"square": rv.Square(queries=3)})


def test_a_randomised_model_draws_the_same_for_an_example_in_any_batch():
    def draw(images, key):
        return linear(images + 0.02 * jax.random.normal(key, images.shape))

    def look(batch_size):
        attacks = {"apgd-ce": rv.APGD(steps=5, samples=3)}
        return rv.evaluate(
            rv.Randomized(draw), IMAGES, LABELS, rv.ThreatModel("linf", 0.01), attacks,
            batch_size=batch_size, progress=False,
        )  # fmt: skip

    report = look(64)
    assert not report.warnings and 0 < report.robust_accuracy < report.clean_accuracy
    np.testing.assert_array_equal(look(8).broken_by, report.broken_by)


def test_effort_is_accounted_for():
    report = rv.evaluate(
        linear, IMAGES[:8], LABELS[:8], rv.ThreatModel("linf", 0.0),
        {"apgd-t": rv.APGD("targeted_dlr", steps=9), "square": rv.Square(queries=19)},
        progress=False,
    )  # fmt: skip
    assert report.robust_accuracy == 1
    assert report.effort["apgd-t"]["forwards"] == 8 * 9 * 10
    assert report.effort["square"]["busy_steps"] == 8 * 20


def cnn():
    """The small convolutional network of the recorded runs."""
    weights = dict(np.load(SHARED / "oracles" / "weights_cnn_relu.npz"))

    def forward(weights, x):
        x = (x - 0.5) / 0.25
        for i in range(6):
            x = jax.lax.conv_general_dilated(
                x, weights[f"convs.{i}.weight"], (1 + (i in (2, 4)),) * 2,
                ((1, 1), (1, 1)), dimension_numbers=("NHWC", "OIHW", "NHWC"),
            )  # fmt: skip
            x = jax.nn.relu(x + weights[f"convs.{i}.bias"])
        return x.mean((1, 2)) @ weights["head.weight"].T + weights["head.bias"]

    return jax.tree_util.Partial(forward, weights)


def resnet20():
    """The published CIFAR-10 ResNet-20 of the recorded runs."""
    model = rv.create_model("cifar_resnet20", num_classes=10)
    return rv.logits_fn(model, rv.load_torch(model, SHARED / "oracles/resnet20.th"))


@pytest.mark.parametrize(
    ("network", "norm", "n", "names"),
    [
        (cnn, "linf", 24, ("apgd-ce", "apgd-t")),
        pytest.param(cnn, "linf", 96, None, marks=pytest.mark.slow),
        pytest.param(cnn, "l2", 64, None, marks=pytest.mark.slow),
        pytest.param(resnet20, "linf", 192, None, marks=pytest.mark.slow),
    ],
)
def test_recorded_runs_of_the_original(network, norm, n, names):
    if not (SHARED / "oracles").is_dir():
        pytest.skip("needs the project's recorded runs in ../shared/oracles")
    file = {cnn: "cnn_relu", resnet20: "resnet20"}[network] + f"_{norm}"
    run = np.load(SHARED / "oracles" / f"{file}.npz")
    eps = json.loads((SHARED / "oracles" / f"{file}.json").read_text())["eps"]
    attacks = rv.autoattack("standard")
    attacks = {name: attacks[name] for name in names or attacks}
    images = run["images"][:n].astype(np.float32) / 255
    report = rv.evaluate(
        network(), images, run["labels"][:n], rv.ThreatModel(norm, eps), attacks,
        batch_size=64, progress=False,
    )  # fmt: skip
    expected = run[f"after_{list(attacks)[-1]}"][:n]
    assert report.clean_accuracy == pytest.approx(run["clean"][:n].mean(), abs=1e-6)
    # One example in a hundred, and never more robust than that.
    assert abs(report.robust.mean() - expected.mean()) <= max(0.01, 1 / n)
    assert not report.warnings
