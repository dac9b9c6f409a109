"""RobustBench's rules, JSON and log; the accuracy of what was saved."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import robustvit as rv
from robustvit.data.transforms import EvalTransform
from robustvit.evaluation import checks, robustbench
from robustvit.evaluation.robustbench import ModelInfo, log_lines, rules_of, to_entry
from robustvit.threat import ThreatModel

BROKEN_BY = np.array([0, 1, -1, -1, 2, 1, -1, -1])


def made_up(norm="linf", eps="8/255", warnings=()):
    """Eight examples of class 1: one wrong, two and one broken, four robust."""
    images = np.full((8, 2, 2, 3), 0.5, np.float32)
    x_adv = images.copy()
    x_adv[BROKEN_BY > 0, 0, 0, 0] += 7 / 255
    x_adv[5, 1, 1, 2] = 0.52
    predictions = np.where(BROKEN_BY == -1, 1, 0)
    return rv.Report(
        threat=ThreatModel(norm, eps),
        attacks={"apgd-ce": None, "square": None},
        seed=0,
        images=images,
        labels=np.ones(8, np.int32),
        x_adv=x_adv,
        clean_predictions=np.where(BROKEN_BY == 0, 0, 1),
        adversarial_predictions=predictions,
        audited_predictions=np.where(np.arange(8) == 4, 1, predictions),
        broken_by=BROKEN_BY,
        radius=np.zeros(8),
        seconds=20.0,
        warnings=tuple(checks.Warning(name, "...") for name in warnings),
        effort={"apgd-ce": {"seconds": 10.26}, "square": {"seconds": 3.1}},
    )


def test_entry_is_robustbenchs_json():
    info = ModelInfo(
        name="Robust XCiT",
        authors="A. Uthor",
        link="https://arxiv.org/abs/2209.07399",
        venue="arXiv 2022",
        architecture="XCiT-S12",
        reported="62.50",
        additional_data=False,
        number_forward_passes=1,
    )
    entry = to_entry(made_up(), rules_of("cifar10", "linf"), info)
    assert json.loads(json.dumps(entry)) == {
        "link": "https://arxiv.org/abs/2209.07399",
        "name": "Robust XCiT",
        "authors": "A. Uthor",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": "cifar10",
        "venue": "arXiv 2022",
        "architecture": "XCiT-S12",
        "eps": "8/255",
        "clean_acc": "87.50",
        "reported": "62.50",
        "autoattack_acc": "62.50",  # example 4 was right when asked again
        "unreliable": False,
        "footnote": "first 8 of 10,000 images",
    }


@pytest.mark.parametrize(
    ("dataset", "norm", "eps"),
    [("cifar10", "linf", "8/255"), ("cifar10", "l2", "0.5"), ("cifar100", "l2", "0.5"),
     ("imagenet", "linf", "4/255")],
)  # fmt: skip
def test_nothing_is_invented(dataset, norm, eps, monkeypatch):
    monkeypatch.setitem(robustbench.NUM_IMAGES, dataset, 8)
    rules = rules_of(dataset, norm)
    entry = to_entry(made_up(norm, eps), rules, ModelInfo())
    assert rules.threat == ThreatModel(norm, eps) and entry["eps"] == eps
    unknown = ("link", "name", "authors", "venue", "architecture", "reported")
    assert all(entry[key] == "" for key in unknown)
    assert entry["additional_data"] is entry["number_forward_passes"] is None
    assert "footnote" not in entry


@pytest.mark.parametrize(
    ("warnings", "unreliable"),
    [((), False), (("audit",), False), (("few-classes",), False),
     (("square-improves",), True), (("audit", "zero-gradient"), True)],
)  # fmt: skip
def test_unreliable_is_what_has_a_reason(warnings, unreliable):
    report = made_up(warnings=warnings)
    entry = to_entry(report, rules_of("cifar10", "linf"), ModelInfo())
    assert entry["unreliable"] is unreliable


def test_log_is_autoattacks():
    assert log_lines(made_up()) == [
        "initial accuracy: 87.50%",
        "robust accuracy after APGD-CE: 62.50% (total time 10.3 s)",
        "robust accuracy after SQUARE: 50.00% (total time 13.4 s)",
        "max Linf perturbation: 0.02745, nan in tensor: 0, max: 0.52745, min: 0.50000",
        "robust accuracy: 50.00%",
        "robust accuracy, re-evaluated: 62.50% (linf, eps 8/255, 8 images)",
    ]
    l2 = log_lines(replace(made_up(), threat=ThreatModel("l2", 1.0)))
    assert l2[3].startswith("max L2 perturbation: 0.03396, nan")  # 7/255 and 0.02
    assert l2[-1].endswith("(l2, eps 1, 8 images)")


WEIGHTS = np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32)


def steady(images):
    return jnp.tensordot(images - 0.5, WEIGHTS, 3)


def fickle(images):
    """Another answer in the audit, whose batches are not of 8."""
    return steady(images) * (1 if len(images) == 8 else -1)


@pytest.mark.parametrize(("forward", "accuracy"), [(steady, 1.0), (fickle, 0.0)])
def test_accuracy_is_asked_again_of_every_saved_image(forward, accuracy):
    images = np.random.default_rng(1).uniform(size=(10, 4, 4, 3)).astype(np.float32)
    report = rv.evaluate(
        forward,
        images,
        np.asarray(steady(images).argmax(-1)),
        ThreatModel("linf", 1e-5),
        {"pgd": rv.LabelAttack(rv.PGD(1, 1e-5))},
        batch_size=8,
        progress=False,
    )
    assert report.robust_accuracy == report.clean_accuracy == 1.0
    assert report.reevaluated_accuracy == accuracy
    assert report.to_dict()["reevaluated_accuracy"] == accuracy
    assert ("audit" in {w.name for w in report.warnings}) == (accuracy < 1)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: rules_of("imagenet", "l2"), "no l2 .* for imagenet, only linf"),
        (lambda: rules_of("cifar10", "l1"), "no l1 .* for cifar10, only linf and l2"),
        (lambda: rules_of("imagenet", "linf").split(5001), "got 5001 .*1 to 5,000"),
        (lambda: rules_of("cifar10", "l2").split(0), "got 0 examples, wanted 1 to 10"),
        (
            lambda: rules_of("cifar10", "l2").check_preprocessing(EvalTransform(224)),
            r"32x32 pixels, but .* Resize\(224, bicubic\), CenterCrop\(224\)",
        ),
    ],
)  # fmt: skip
def test_what_robustbench_does_not_have(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_what_robustbench_has():
    assert rules_of("cifar10", "l2").split(None) == "robustbench"
    assert rules_of("imagenet", "linf").split(100) == "robustbench[:100]"
    rules_of("imagenet", "linf").check_preprocessing(EvalTransform(224, 0.875))
    assert str(EvalTransform(224, 0.875)) == "Resize(256, bicubic), CenterCrop(224)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"nane": "x"}', "no field 'nane': did you mean 'name'"),
        ('{"additional_data": "yes"}', "additional_data='yes' is not of type bool"),
        ('{"number_forward_passes": true}', "True is not of type int"),
        ('{"name": 3}', "name=3 is not of type str"),
        ("name: x", "is not JSON"),
        ("[]", "holds no JSON object"),
    ],
)
def test_model_info_with_a_mistake(tmp_path, text, message):
    (tmp_path / "info.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        robustbench.read_model_info(tmp_path / "info.json")
