"""A part of the data, attacked at its places in the whole, falls as in the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import robustvit as rv
from robustvit.evaluation.forwards import calls_python, keyed

RNG = np.random.default_rng(0)
N, K = 40, 6
WEIGHTS = RNG.normal(size=(5, 5, 3, K)).astype(np.float32)
IMAGES = RNG.uniform(0.3, 0.7, size=(N, 5, 5, 3)).astype(np.float32)
THREAT = rv.ThreatModel("linf", 0.005)


def bumpy(images):
    """Not monotone within eps, so that what is drawn decides."""
    return jnp.tensordot(images - 0.5 + 0.02 * jnp.sin(300 * images), WEIGHTS, 3)


def noisy(images, key):
    return bumpy(images + 0.005 * jax.random.normal(key, images.shape))


LABELS = np.asarray(bumpy(IMAGES).argmax(-1))
ATTACKS = {
    "pgd": rv.LabelAttack(rv.PGD(1, 0.0005), restarts=2),
    "apgd-t": rv.APGD("targeted_dlr", steps=2, targets=1),
    "square": rv.Square(queries=30),
}


def look(forward, rows, attacks=ATTACKS, **options):
    return rv.evaluate(
        forward, IMAGES[rows], LABELS[rows], THREAT, attacks, progress=False, seed=4,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("forward", "names"),
    [(bumpy, ("pgd", "apgd-t", "square")), (rv.Randomized(noisy), ("pgd",))],
    ids=["same", "draws"],
)
def test_verdicts_of_a_subset_are_those_of_the_whole(forward, names):
    attacks = {name: ATTACKS[name] for name in names}
    whole = look(forward, np.arange(N), attacks)
    assert len(set(whole.broken_by.tolist())) == 3
    rows = np.random.default_rng(1).permutation(N)[:25]
    assert (whole.broken_by[rows] > 0).any()
    part = look(forward, rows, attacks, ids=rows, batch_size=5)
    np.testing.assert_array_equal(part.broken_by, whole.broken_by[rows])
    np.testing.assert_allclose(part.x_adv, whole.x_adv[rows], atol=1e-6)
    # At other places other things are drawn.
    moved = look(forward, rows, attacks, ids=rows + N)
    assert np.abs(moved.x_adv - whole.x_adv[rows]).max() > 1e-3


def test_a_state_folder_remembers_the_places(tmp_path):
    rows = np.arange(3)
    look(bumpy, rows, {}, ids=rows + 1, state_dir=tmp_path)
    look(bumpy, rows, {}, ids=rows + 1, state_dir=tmp_path)
    with pytest.raises(ValueError, match=r"ids: \[1, 2, 3\] -> \[2, 3, 4\]"):
        look(bumpy, rows, {}, ids=rows + 2, state_dir=tmp_path)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 1], r"ids must be 3 whole numbers, .* got int64 of shape \(2,\)"),
        ([0.0, 1.0, 2.0], "got float64"),
        ([0, 1, 1], "different places"),
        ([-1, 0, 1], "different places"),
    ],
)
def test_ids_that_are_no_places_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        look(bumpy, np.arange(3), {}, ids=np.array(ids))


def test_what_jax_cannot_differentiate_is_for_square_alone():
    def foreign(images):
        shape = jax.ShapeDtypeStruct((len(images), K), np.float32)
        return jax.pure_callback(
            lambda x: np.tensordot(np.asarray(x) - 0.5, WEIGHTS, 3), shape, images
        )

    few = np.arange(8)
    message = r"jax cannot differentiate this forward \(Pure callbacks do not support"
    with pytest.raises(ValueError, match=message + r".*pgd, apgd-t need .*square"):
        look(foreign, few)
    report = rv.evaluate(
        foreign, IMAGES[few], LABELS[few], THREAT, {"square": rv.Square(queries=9)},
        progress=False,
    )  # fmt: skip
    assert report.robust_accuracy < 1
    # On several devices the one with the callback and the others wait for one another.
    assert calls_python(keyed(foreign), IMAGES[:1])
    assert not calls_python(keyed(bumpy), IMAGES[:1])
