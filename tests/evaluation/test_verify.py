"""Reports that are as they should be, and reports that were tampered with."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import robustvit as rv
from robustvit.evaluation.verify import allowed_changes, choose, verify

RNG = np.random.default_rng(0)
N, K = 60, 4
WEIGHTS = RNG.normal(size=(6, 6, 3, K)).astype(np.float32)
IMAGES = RNG.uniform(0.3, 0.7, size=(N, 6, 6, 3)).astype(np.float32)
THREAT = rv.ThreatModel("linf", 2 / 255)
ATTACKS = {
    "pgd": rv.LabelAttack(rv.PGD(2, 0.001)),
    "apgd-ce": rv.APGD(steps=5),
}


def linear(images):
    return jnp.tensordot(images - 0.5, WEIGHTS, 3)


LABELS = np.array(linear(IMAGES).argmax(-1))
LABELS[:5] = (LABELS[:5] + 1) % K


@pytest.fixture(scope="module")
def saved():
    report = rv.evaluate(linear, IMAGES, LABELS, THREAT, ATTACKS, progress=False)
    assert {-1, 0, 1} <= set(report.broken_by.tolist())
    return json.loads(json.dumps(report.to_dict()))


def check(saved, forward=linear, images=IMAGES, labels=LABELS, **options):
    found = verify(
        saved, forward, images, labels, THREAT, ATTACKS, progress=False, **options
    )
    return found.trusted, str(found)


def consistent(saved, broken_by):
    """The report that someone would write who wants to claim these verdicts."""
    from robustvit.evaluation.report import summary

    claim = summary(np.array(broken_by), saved["attacks"])
    return {**saved, **json.loads(json.dumps(claim)), "broken_by": list(broken_by)}


def test_an_honest_report_is_trusted(saved):
    trusted, text = check(saved, examples=8)
    assert trusted and "!!" not in text
    assert "8 of 60 examples attacked again" in text and "0 changed, 0 may" in text
    assert "of the robust verdicts been false" in text
    trusted, text = check(saved, examples=500)
    assert trusted and "robust verdicts were attacked again" in text


def test_edited_verdicts_are_found(saved):
    """Every broken example is claimed to be robust, and the accuracies follow."""
    flipped = consistent(saved, [-1 if v > 0 else v for v in saved["broken_by"]])
    trusted, text = check(flipped)
    assert not trusted and "NOT TRUSTED: verdicts" in text
    assert "robust -> broken by pgd" in text
    assert "ok  numbers" in text


def test_edited_numbers_are_found(saved):
    trusted, text = check({**saved, "robust_accuracy": 0.99})
    assert not trusted and "NOT TRUSTED: numbers" in text
    assert f"robust_accuracy: 0.99 -> {saved['robust_accuracy']}" in text
    after = {**saved["accuracy_after"], "pgd": 1.0}
    assert "accuracy_after.pgd: 1.0 -> " in check({**saved, "accuracy_after": after})[1]
    threat = {**saved["threat"], "eps": "8/255"}
    assert "threat.eps: 8/255 -> 2/255" in check({**saved, "threat": threat})[1]
    ends = [saved["clean_accuracy"], saved["robust_accuracy"]]
    for shares in ([1.0, ends[1]], [ends[0], 0.1, ends[1]]):
        curve = {"robust_accuracy": shares}
        assert "curve: must fall from" in check({**saved, "curve": curve})[1]
    fewer = consistent(saved, saved["broken_by"][5:])
    assert "55 verdicts for 60 images" in check(fewer)[1]
    assert "must lie in [-1, 2]" in check(consistent(saved, [3] * N))[1]


def test_another_model_and_other_data_are_found(saved):
    trusted, text = check(saved, forward=lambda x: 2 * linear(x))
    was = saved["fingerprints"]["model"]
    assert not trusted and "NOT TRUSTED: model" in text and f"model: {was} -> " in text
    trusted, text = check(saved, images=IMAGES[::-1])
    assert not trusted and "NOT TRUSTED: data" in text
    assert "attacked again" not in text  # in vain


def test_elsewhere_one_verdict_may_differ_but_not_two(saved):
    assert [allowed_changes(n, False) for n in (1, 32, 99, 150)] == [1, 1, 1, 3]
    far = {**saved, "device": "8 x TPU v4", "fingerprints": dict(saved["fingerprints"])}
    far["fingerprints"]["model"] = "another program"  # of the same weights
    assert check(far)[0]
    broken = [i for i, v in enumerate(saved["broken_by"]) if v > 0]
    for changes, passes in ((1, True), (2, False)):
        claim = list(saved["broken_by"])
        for i in broken[:changes]:
            claim[i] = -1
        trusted, text = check(consistent(far, claim), examples=N)
        assert trusted == passes and f"{changes} changed, 1 may" in text
        assert f"example {broken[0]}: robust -> broken by" in text
    assert not check(consistent(saved, claim), examples=N)[0]


def test_a_sample_has_every_kind_in_it():
    broken_by = np.array([-1] * 90 + [1] * 5 + [0] * 5)
    kinds = broken_by[choose(broken_by, 16, seed=1)]
    assert [(kinds == v).sum() for v in (-1, 1, 0)] == [8, 4, 4]
    kinds = broken_by[choose(broken_by, 50, seed=1)]
    assert [(kinds == v).sum() for v in (-1, 1, 0)] == [40, 5, 5]
    assert set(choose(broken_by, 16, seed=1)) != set(choose(broken_by, 16, seed=2))
    assert broken_by[choose(broken_by, 1, seed=0)] == -1
    assert len(choose(broken_by, 1000, seed=0)) == 100


def test_no_examples_prove_nothing(saved):
    with pytest.raises(ValueError, match="examples=0 must be at least 1"):
        check(saved, examples=0)
