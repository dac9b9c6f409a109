"""`evaluate` against closed forms on linear models, and against its own promises."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import robustvit as rv
from robustvit.evaluation.intervals import wilson
from robustvit.models import create_model

RNG = np.random.default_rng(0)
N, K = 61, 4
WEIGHTS = RNG.normal(size=(6, 6, 3, K)).astype(np.float32)
IMAGES = RNG.uniform(0.3, 0.7, size=(N, 6, 6, 3)).astype(np.float32)


def linear(images):
    return jnp.tensordot(images - 0.5, WEIGHTS, 3)


def bumpy(images):
    """Not monotone within 0.02, so an attack depends on where it starts."""
    return linear(images + 0.01 * jnp.sin(300 * images))


LABELS = np.array(linear(IMAGES).argmax(-1))
LABELS[:5] = (LABELS[:5] + 1) % K  # wrong before any attack


def exact_radius(order):
    """Distance to the nearest wrong class in the dual norm (the box is inactive)."""
    logits = np.asarray(linear(IMAGES))
    gap = logits[np.arange(N), LABELS][:, None] - logits
    flat = WEIGHTS.reshape(-1, K)
    reach = np.linalg.norm(flat[:, LABELS][..., None] - flat[:, None], order, axis=0)
    others = np.arange(K) != LABELS[:, None]
    return np.where(others, gap / np.where(others, reach, 1.0), np.inf).min(1)


def pgd(eps, steps=40, **args):
    return rv.LabelAttack(rv.PGD(steps, 2.5 * eps / steps), **args)


@pytest.mark.parametrize(("norm", "eps", "dual"), [("linf", 0.005, 1), ("l2", 0.05, 2)])
def test_linear_models_have_exactly_known_robustness(norm, eps, dual):
    attacks = {  # the nearest class need not be the one that looks nearest at first
        "fgsm": rv.LabelAttack(rv.fgsm(eps)),
        "pgd": pgd(eps, loss="targeted_cross_entropy", restarts=20),
    }
    report = rv.evaluate(
        linear, IMAGES, LABELS, rv.ThreatModel(norm, eps), attacks, progress=False
    )
    radius = exact_radius(dual)
    expected, sure = radius > eps, np.abs(radius / eps - 1) > 0.02
    assert 0.1 < expected.mean() < 0.8 and sure.sum() >= N - 3
    np.testing.assert_array_equal(report.robust[sure], expected[sure])
    assert report.clean_accuracy == pytest.approx((N - 5) / N)
    after = list(report.accuracy_after.values())
    assert report.clean_accuracy >= after[0] >= after[1] == report.robust_accuracy


def test_adversarial_images_are_what_they_claim():
    eps = 0.005
    report = rv.evaluate(
        linear,
        IMAGES,
        LABELS,
        rv.ThreatModel("linf", eps),
        {"pgd": pgd(eps)},
        progress=False,
    )
    x_adv = report.x_adv
    assert x_adv.dtype == np.float32 and x_adv.shape == IMAGES.shape
    assert np.abs(x_adv - IMAGES).max() <= eps + 1e-6
    predictions = np.asarray(linear(x_adv).argmax(-1))
    np.testing.assert_array_equal(predictions == LABELS, report.robust)
    np.testing.assert_array_equal(predictions, report.adversarial_predictions)
    untouched = report.broken_by <= 0  # robust, or wrong already
    np.testing.assert_array_equal(x_adv[untouched], IMAGES[untouched])


def test_no_dependence_on_batch_size_devices_or_how_the_data_comes():
    labels = np.asarray(bumpy(IMAGES).argmax(-1))
    threat = rv.ThreatModel("linf", 0.005)
    attacks = {"pgd": pgd(0.005, steps=4, restarts=2)}

    def flags(images, labels, **args):
        report = rv.evaluate(
            bumpy, images, labels, threat, attacks, progress=False, seed=3, **args
        )
        return report.broken_by

    reference = flags(IMAGES, labels)
    assert 0 < (reference == 1).sum() < N
    for batch_size in (1, 7, 64):
        np.testing.assert_array_equal(
            flags(IMAGES, labels, batch_size=batch_size), reference
        )
    chunks = [(IMAGES[:20], labels[:20]), (IMAGES[20:], labels[20:])]
    np.testing.assert_array_equal(flags(iter(chunks), None), reference)


def test_restarts_only_help_the_attacker():
    labels = np.asarray(bumpy(IMAGES).argmax(-1))
    threat = rv.ThreatModel("linf", 0.008)

    def robust(restarts):
        attacks = {"pgd": rv.LabelAttack(rv.PGD(1, 0.002), restarts=restarts)}
        return rv.evaluate(
            bumpy, IMAGES, labels, threat, attacks, progress=False
        ).robust

    once, often = robust(1), robust(8)
    assert (often <= once).all() and often.sum() < once.sum()


def test_no_eps_and_no_attack_give_clean_accuracy():
    threat = rv.ThreatModel("linf", 0.0)
    for attacks in ({}, {"pgd": rv.LabelAttack(rv.PGD(5, 0.1))}):
        report = rv.evaluate(linear, IMAGES, LABELS, threat, attacks, progress=False)
        assert report.robust_accuracy == report.clean_accuracy == (N - 5) / N


def test_report_files(tmp_path):
    eps = 8 / 255
    report = rv.evaluate(
        linear,
        IMAGES,
        LABELS,
        rv.ThreatModel("linf", eps),
        {"pgd-40": pgd(eps)},
        progress=False,
        class_names=("cat", "dog", "hen", "owl"),
    )
    report.to_json(tmp_path / "report.json", dataset="made up")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["robust_accuracy"] == report.robust_accuracy
    assert saved["threat"] == {"norm": "linf", "eps": "8/255", "eps_float": eps}
    assert saved["attacks"]["pgd-40"]["attack"]["steps"] == 40
    assert saved["dataset"] == "made up" and len(saved["broken_by"]) == N
    low, high = saved["robust_interval95"]
    assert low < saved["robust_accuracy"] < high
    report.plot(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000
    assert "pgd-40" in str(report) and "eps 8/255" in str(report)


def test_wilson_interval():
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_model_as_a_function_computes_in_float32():
    model = create_model(
        "xcit_nano_12_p8_32", dim=16, depth=1, num_heads=2, dtype=jnp.bfloat16
    )
    images = jnp.asarray(RNG.uniform(size=(2, 32, 32, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), images)
    forward = rv.logits_fn(model, variables)
    exact = model.clone(dtype=jnp.float32).apply(variables, images).logits
    np.testing.assert_allclose(jax.jit(forward)(images), exact, atol=1e-5)
    # The weights are arguments, not constants of the compiled program.
    assert len(jax.tree.leaves(forward)) == len(jax.tree.leaves(variables))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES * 255, LABELS, r"must be in \[0, 1\], got .*normalisation belongs"),
        ((IMAGES * 255).astype(np.uint8), LABELS, "images are uint8.*images / 255"),
        (IMAGES * np.nan, LABELS, r"must be in \[0, 1\], got \[nan"),
        (IMAGES[:, :, :, :1], LABELS, r"wanted images \(n, h, w, 3\)"),
        (IMAGES, LABELS[:-1], r"labels \(n,\), got"),
        (IMAGES, LABELS + K, f"there are {K} logits"),
        (IMAGES, None, "iterable of"),
        (iter([]), None, "nothing to evaluate"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_sentence(images, labels, message):
    with pytest.raises(ValueError, match=message):
        rv.evaluate(
            linear, images, labels, rv.ThreatModel("linf", 0.1), {}, progress=False
        )


def test_models_that_give_nan_and_attacks_that_cheat_are_refused():
    threat = rv.ThreatModel("linf", 0.1)
    with pytest.raises(ValueError, match="logits are not finite"):
        rv.evaluate(
            lambda x: linear(x) / 0.0, IMAGES, LABELS, threat, {}, progress=False
        )

    class Cheat(rv.PGD):
        def __call__(self, loss_fn, x, threat, keys):
            return x + 0.2

    cheat = {"cheat": rv.LabelAttack(Cheat(1, 0.1))}
    with pytest.raises(ValueError, match=r"left the threat model: distance 0\.2"):
        rv.evaluate(linear, IMAGES, LABELS, threat, cheat, progress=False)
