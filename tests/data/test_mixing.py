"""MixUp and CutMix: closed forms, timm's targets and boxes, the drawn distributions."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustvit.data.mixing import Mixing, box
from robustvit.parallel import data_mesh, put_batch

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "augment.npz")
BOTH = Mixing(5, mixup=0.8, cutmix=1.0)
LABELS = jnp.array([3, 0, 4, 4])


def images(count=4, height=12, width=17):
    return jax.random.uniform(jax.random.key(3), (count, height, width, 3))


@pytest.fixture(scope="module")
def draws():
    """1,500 draws of what pixels and target keep, and of which kind each is."""
    mixing = Mixing(5, mixup=0.8, cutmix=1.0, prob=0.9, switch_prob=0.4)
    draw = jax.jit(jax.vmap(lambda key: mixing.draw(key, 64, 64)))
    keep, share = map(np.asarray, draw(jax.random.split(jax.random.key(0), 1500)))
    untouched = (keep == 1).all((1, 2))
    is_cutmix = ~untouched & ((keep == 0) | (keep == 1)).all((1, 2))
    return keep, share, untouched, is_cutmix


def test_boxes_and_shares_are_timms():
    for share, row, column, top, bottom, left, right, corrected in GOLDEN["boxes"]:
        inside = np.asarray(
            box(
                jnp.float32(share),
                jnp.int32(row),
                jnp.int32(column),
                height=12,
                width=17,
            )
        )
        expected = np.zeros((12, 17))
        expected[int(top) : int(bottom), int(left) : int(right)] = 1
        np.testing.assert_array_equal(inside, expected)
        assert 1 - inside.mean() == pytest.approx(corrected, abs=1e-6)


@pytest.mark.parametrize("mode", [0, 1], ids=["sharp", "smoothed"])
def test_targets_are_timms(mode):
    plain = Mixing(5, mixup=1.0, label_smoothing=(0.0, 0.1)[mode])
    for share, expected in zip(
        GOLDEN["shares"], GOLDEN["targets"][:, mode], strict=True
    ):
        own = plain.targets(jnp.asarray(GOLDEN["labels"]))
        mixed = share * own + (1 - share) * own[::-1]
        np.testing.assert_allclose(mixed, expected, atol=1e-6)


@pytest.mark.parametrize("mixing", [BOTH, Mixing(5, cutmix=1.0)], ids=["both", "cut"])
def test_images_and_targets_agree(mixing):
    """From the mixture of black and white one reads the share of each pixel."""
    black_white = jnp.concatenate([jnp.zeros((2, 8, 6, 3)), jnp.ones((2, 8, 6, 3))])
    labels = jnp.array([1, 1, 2, 2])
    apply = jax.jit(Mixing(5, mixing.mixup, mixing.cutmix, label_smoothing=0.0))
    kinds = set()
    for seed in range(12):
        mixed, targets = apply(black_white, labels, jax.random.key(seed))
        np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
        white = np.asarray(mixed).mean((1, 2, 3))  # all of an image's that is not black
        np.testing.assert_allclose(targets[:, 2], white, atol=1e-6)
        np.testing.assert_allclose(targets[:, 1], 1 - white, atol=1e-6)
        assert 0 <= mixed.min() <= mixed.max() <= 1
        first = np.asarray(mixed[0])
        kinds.add("cutmix" if set(np.unique(first)) <= {0.0, 1.0} else "mixup")
    wanted = {"cutmix": mixing.cutmix, "mixup": mixing.mixup}
    assert kinds == {kind for kind, alpha in wanted.items() if alpha}


def test_partner_is_the_mirror_in_the_batch():
    x = images()
    apply = Mixing(5, mixup=1.0, label_smoothing=0.1)
    mixed, targets = jax.jit(apply)(x, LABELS, jax.random.key(1))
    share = ((mixed - x[::-1]) / (x - x[::-1])).mean()  # the same for every pixel
    np.testing.assert_allclose(mixed, share * x + (1 - share) * x[::-1], atol=1e-6)
    one_hot = jax.nn.one_hot(LABELS, 5) * 0.9 + 0.02
    np.testing.assert_allclose(
        targets, share * one_hot + (1 - share) * one_hot[::-1], atol=1e-6
    )


def test_probabilities(draws):
    _, share, untouched, is_cutmix = draws
    # A box without a pixel, or a share of one, is rarer than the tolerance.
    assert abs(untouched.mean() - 0.1) < 4 * math.sqrt(0.09 / 1500) + 0.005
    assert abs(is_cutmix.mean() - 0.9 * 0.4) < 4 * math.sqrt(0.23 / 1500)
    assert (share[untouched] == 1).all()


def test_mixup_shares_have_the_moments_of_beta(draws):
    keep, share, untouched, is_cutmix = draws
    is_mixup = ~untouched & ~is_cutmix
    keep, share = keep[is_mixup], share[is_mixup]
    np.testing.assert_array_equal(keep, share[:, None, None] + 0 * keep)
    variance = 1 / (4 * (2 * 0.8 + 1))
    assert abs(share.mean() - 0.5) < 4 * math.sqrt(variance / len(share))
    # What is at most a half away has a fourth moment of at most variance / 4.
    assert abs(share.var() - variance) < 4 * math.sqrt(variance / 4 / len(share))
    assert share.min() >= 0 and share.max() <= 1


def test_cutmix_boxes_have_their_area(draws):
    """Beta(1, 1), a uniform centre, and what hangs over the border is lost."""
    keep, share = draws[0][draws[3]], draws[1][draws[3]]
    np.testing.assert_allclose(keep.mean((1, 2)), share, atol=1e-6)
    # Side s = sqrt(1 - share) of 1, centre uniform: on average s - s^2 / 4 of it is
    # inside. Squared, and integrated over s^2 uniform: 1/2 - 1/5 + 1/48.
    expected = 0.5 - 0.2 + 1 / 48
    area = 1 - share
    # Rounding sides down loses half a pixel of 64.
    assert abs(area.mean() - expected) < 4 * area.std() / math.sqrt(len(area)) + 0.012
    rows, columns = (1 - keep).any(2), (1 - keep).any(1)
    np.testing.assert_allclose(rows.sum(1) * columns.sum(1), (1 - keep).sum((1, 2)))
    assert min(rows[:, 0].sum(), rows[:, -1].sum(), columns[:, 0].sum()) > 30


def test_devices_do_not_matter():
    batch = {"image": np.asarray(images(8)), "label": np.arange(8) % 5}
    apply, results = jax.jit(BOTH), []
    for count in (1, 4):
        placed = put_batch(batch, data_mesh(jax.devices()[:count]))
        for seed in range(4):
            key = jax.random.key(seed)
            results.append(apply(placed["image"], placed["label"], key))
    for one, other in zip(results[:4], results[4:], strict=True):
        # For another layout the compiler may contract other products and sums.
        np.testing.assert_allclose(one[0], other[0], atol=1e-6)
        np.testing.assert_allclose(one[1], other[1], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "got mixup=0 and cutmix=0, wanted one of them above 0"),
        ({"mixup": -1.0}, "got mixup=-1.0, wanted at least 0"),
        ({"cutmix": 1.0, "prob": 2.0}, r"got prob=2.0, wanted it in \[0, 1\]"),
        ({"mixup": 1.0, "num_classes": 0}, "got num_classes=0, wanted at least 1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**{"num_classes": 5, **arguments})


def test_an_odd_batch_is_an_error():
    with pytest.raises(ValueError, match="got a batch of 3 images, wanted an even"):
        BOTH(images(3), LABELS[:3], jax.random.key(0))
