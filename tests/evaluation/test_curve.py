"""Robust accuracy by eps, from one evaluation."""

import numpy as np
import pytest

import robustvit as rv
from robustvit.evaluation import ledger
from tests.conftest import SHARED
from tests.evaluation.test_autoattack import (
    IMAGES,
    LABELS,
    cnn,
    exact_radius,
    linear,
)

POINTS = 16


def evaluate(norm, **options):
    eps = min(float(np.quantile(exact_radius(norm), 0.7)), 0.39)
    attacks = {
        "apgd-ce": rv.APGD(steps=25),
        "apgd-t": rv.APGD("targeted_dlr", steps=25, targets=4),
    }
    if norm == "l1":
        attacks["fab-t"] = rv.FAB(steps=25)
    return rv.evaluate(
        linear, IMAGES, LABELS, rv.ThreatModel(norm, eps), attacks, progress=False,
        **{"curve": POINTS, "batch_size": 16, **options},
    )  # fmt: skip


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_curve_of_a_linear_model_is_the_exact_one(norm):
    report, exact = evaluate(norm), exact_radius(norm)
    eps, accuracy = np.array(list(report.curve)), np.array(list(report.curve.values()))
    assert len(eps) == POINTS + 1 and eps[0] == 0
    assert accuracy[0] == report.clean_accuracy
    assert accuracy[-1] == report.robust_accuracy
    assert (np.diff(accuracy) <= 0).all()
    assert (report.radius >= exact * (1 - 1e-5)).all()  # each was really found
    # An example this near to an eps may fall on either side of it.
    near = 0.05 if norm == "l1" else 0.01
    doubtful = (np.abs(exact[:, None] / np.maximum(eps, 1e-9) - 1) < near).sum(0)
    wrong = np.abs(accuracy - (exact[:, None] > eps).mean(0)) * len(exact)
    assert (wrong <= doubtful + 1e-6).all(), wrong


def test_without_a_curve_there_is_none():
    report = evaluate("linf", curve=0)
    assert report.curve == {} and report.to_dict()["curve"]["eps"] == []
    with pytest.raises(ValueError, match="curve=-1 must be"):
        evaluate("linf", curve=-1)


def test_an_interrupted_curve_goes_on_to_the_same_end(tmp_path, monkeypatch):
    whole = evaluate("linf")
    looks = iter(range(40))

    def save_and_stop(self):
        self.save()
        if self.attack > 2 and next(looks) == 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "save_if_due", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate("linf", state_dir=tmp_path)
    again = evaluate("linf", state_dir=tmp_path)
    np.testing.assert_array_equal(again.radius, whole.radius)
    assert again.curve == whole.curve


@pytest.mark.slow
def test_a_curve_is_what_separate_runs_find_and_costs_less_than_a_second_one():
    if not (SHARED / "oracles").is_dir():
        pytest.skip("needs the project's recorded runs in ../shared/oracles")
    run, n = np.load(SHARED / "oracles" / "cnn_relu_linf.npz"), 48
    images = run["images"][:n].astype(np.float32) / 255

    def ask(eps, curve=0):
        return rv.evaluate(
            cnn(), images, run["labels"][:n], rv.ThreatModel("linf", eps),
            rv.autoattack("standard"), batch_size=64, progress=False, curve=curve,
        )  # fmt: skip

    report = ask(8 / 255, curve=32)
    for eps, accuracy in report.curve.items():
        if eps in (4 / 255, 6 / 255):
            assert abs(ask(eps).robust_accuracy - accuracy) <= 0.005
    passes = {k: v["forwards"] + 2 * v["backwards"] for k, v in report.effort.items()}
    extra = sum(v for k, v in passes.items() if k not in report.attacks)
    assert extra < sum(v for k, v in passes.items() if k in report.attacks)
    assert sum(eps in (4 / 255, 6 / 255) for eps in report.curve) == 2
