"""RandAugment against timm's images, and what it draws against its probabilities."""

import math
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from robustvit.data import rand_augment as R
from robustvit.data.rand_augment import RandAugment, Step, parse_rand_augment
from robustvit.data.three_augment import ThreeAugment
from tests.data.conftest import encode, smooth_image

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "augment.npz")
TIMM = parse_rand_augment("rand-m9-mstd0.5-inc1")


def rng(seed=0):
    return np.random.default_rng(seed)


def steps_of_golden():
    for key, result in zip(GOLDEN["names"], GOLDEN["results"], strict=True):
        name, magnitude, sign, filter_ = key.split("/")
        yield Step(name, float(magnitude), int(sign), filter_), result


@pytest.mark.parametrize("name", sorted(R.OPERATIONS))
def test_operation_is_timms(name):
    """To the bit: both are Pillow in the end."""
    cases = [(step, image) for step, image in steps_of_golden() if step.name == name]
    assert len(cases) >= 5
    for step, expected in cases:
        np.testing.assert_array_equal(
            R.apply_step(GOLDEN["image"], step), expected, err_msg=str(step)
        )


@pytest.mark.parametrize(
    ("name", "magnitude"), [("Posterize", 0.0), ("PosterizeIncreasing", 10.0)]
)
def test_no_bits_are_a_black_image(name, magnitude):
    assert not R.apply_step(GOLDEN["image"], Step(name, magnitude)).any()


def test_what_a_warp_leaves_empty_is_the_mean_colour():
    shifted = R.apply_step(smooth_image(20, 30), Step("TranslateXRel", 10.0, -1))
    empty = shifted[:, : int(0.45 * 30)]
    assert (empty == R.MEAN_COLOUR).all()
    grey = RandAugment(9.0, 0.0, 1, 1.0, ("TranslateXRel",), fill=(1, 2, 3))
    assert (grey(smooth_image(20, 30), rng()) == (1, 2, 3)).all(-1).any()


def test_draws_have_their_probabilities():
    policy = parse_rand_augment("rand-m9-mstd0.5-inc1")
    generator = rng(1)
    draws = [policy.draw(generator) for _ in range(2000)]
    steps = [step for draw in draws for step in draw]
    # two layers with probability a half: 0, 1, 2 steps in 1/4, 1/2, 1/4 of the cases
    counts = np.bincount([len(draw) for draw in draws], minlength=3) / 2000
    np.testing.assert_allclose(counts, [0.25, 0.5, 0.25], atol=0.045)  # 4 deviations
    names, found = np.unique([step.name for step in steps], return_counts=True)
    assert set(names) == set(R.INCREASING) and len(names) == 15
    sigma = math.sqrt(len(steps) / 15 * 14 / 15)
    assert np.abs(found - len(steps) / 15).max() < 4.5 * sigma
    signs = np.array([step.sign for step in steps])
    assert set(signs) == {1, -1} and abs(signs.mean()) < 4 / math.sqrt(len(steps))
    assert {step.filter for step in steps} == {"bicubic"}
    # with replacement: the same operation twice in one case of 15
    twice = [draw[0].name == draw[1].name for draw in draws if len(draw) == 2]
    assert abs(np.mean(twice) - 1 / 15) < 4 * math.sqrt(14) / 15 / math.sqrt(len(twice))


def test_magnitudes_are_normal_and_clipped():
    policy = RandAugment(magnitude=9.0, magnitude_std=0.5, num_layers=20)
    generator = rng(2)
    drawn = np.sort([s.magnitude for _ in range(200) for s in policy.draw(generator)])
    n = len(drawn)
    assert drawn.max() == 10.0  # two standard deviations above
    assert abs((drawn == 10.0).mean() - 0.02275) < 4 * math.sqrt(0.0222 / n)
    below = drawn[drawn < 10]
    normal = [0.5 + 0.5 * math.erf((m - 9) / 0.5 / math.sqrt(2)) for m in below]
    distance = np.abs(np.array(normal) - np.arange(len(below)) / n).max()
    assert distance < 1.63 / math.sqrt(n)  # 1 % quantile of Kolmogorov-Smirnov
    low = RandAugment(magnitude=0.1, magnitude_std=5.0, num_layers=20).draw(rng())
    assert min(step.magnitude for step in low) == 0.0
    fixed = RandAugment(magnitude=7.0, magnitude_std=0.0).draw(rng(3))
    assert {step.magnitude for step in fixed} == {7.0}


def test_random_interpolation_draws_both():
    policy = RandAugment(interpolation="random", num_layers=400)
    filters = [step.filter for step in policy.draw(rng())]
    assert set(filters) == {"bilinear", "bicubic"}
    assert abs(filters.count("bicubic") / len(filters) - 0.5) < 0.15


def test_policy_is_its_steps_in_a_row():
    image, policy = smooth_image(24, 24), RandAugment(num_layers=3, probability=1.0)
    expected = image
    for step in policy.draw(rng(5)):
        expected = R.apply_step(expected, step)
    result = policy(image, rng(5))
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(policy(encode(image, "PNG"), rng(5)), expected)
    assert result.dtype == np.uint8 and result.shape == image.shape
    assert len({policy(image, rng(i)).tobytes() for i in range(20)}) > 15


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rand-m9-mstd0.5-inc1", RandAugment()),
        ("rand-mstd0.5-inc1-m9", RandAugment()),
        ("rand-m9-inc0", RandAugment(9.0, 0.0, operations=R.PLAIN)),
        ("rand", RandAugment(10.0, 0.0, operations=R.PLAIN)),
        ("rand-m7-n3-p0.25-inc1", RandAugment(7.0, 0.0, 3, 0.25)),
    ],
)
def test_parsing(text, expected):
    assert parse_rand_augment(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("augmix-m5", "policy 'augmix-m5', wanted it to begin with rand-"),
        ("rand-9", "got '9' in policy 'rand-9', wanted one of m, mstd, inc, n, p and"),
        ("rand-m9-mmax12", "got 'mmax12' in policy"),
        ("rand-m9-tweights", "got 'tweights' in policy"),
        ("rand-m", "got 'm' in policy"),
        ("rand-m9-m8", "got m twice in policy"),
        ("rand-m9-inc2", "wanted inc0 or inc1, and a whole n"),
        ("rand-m9-n1.5", "wanted inc0 or inc1, and a whole n"),
        ("rand-m11", r"got magnitude=11.0, wanted it in \[0, 10\]"),
        ("rand-m9-p2", r"got probability=2.0, wanted it in \[0, 1\]"),
        ("rand-m9-n0", "got num_layers=0, wanted at least 1"),
    ],
)
def test_parsing_errors(text, message):
    with pytest.raises(ValueError, match=message):
        parse_rand_augment(text)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="got interpolation='lanczos', wanted one of"):
        RandAugment(interpolation="lanczos")
    with pytest.raises(ValueError, match=r"got operations=\('Cutout',\), wanted some"):
        RandAugment(operations=("Cutout",))
    with pytest.raises(ValueError, match=r"got radius=\(2.0, 1.0\), wanted 0 <= low"):
        ThreeAugment((2.0, 1.0))


def test_three_augment_is_one_of_three():
    image = smooth_image(16, 16)
    picture = Image.fromarray(image)
    grey = np.asarray(picture.convert("L"))[..., None].repeat(3, -1)
    solarized = np.where(image < 128, image, 255 - image)
    counts, generator = {"grey": 0, "solarized": 0, "blurred": 0}, rng(4)
    for _ in range(1000):
        result = ThreeAugment()(image, generator)
        if np.array_equal(result, grey):
            counts["grey"] += 1
        elif np.array_equal(result, solarized):
            counts["solarized"] += 1
        else:
            counts["blurred"] += 1
            assert np.abs(result.astype(int).mean() - image.mean()) < 1.5
    assert min(counts.values()) > 333 - 4 * 15  # standard deviation 15
    fixed = ThreeAugment(radius=(1.5, 1.5))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.5)))
    results = [fixed(image, rng(i)) for i in range(20)]
    assert any(np.array_equal(result, blurred) for result in results)


def test_blur_radii_are_uniform():
    """Seen through the peak that is left of a white point, which falls with them."""
    image = np.zeros((21, 21, 3), np.uint8)
    image[10, 10] = 255
    peaks = []
    for radius in np.linspace(0.1, 2.0, 400).tolist():
        blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))
        peaks.append(np.asarray(blurred)[10, 10, 0])
    results = [ThreeAugment()(image, rng(i)) for i in range(1200)]
    # neither grey nor solarized: those leave the point alone, or make it black
    got = [r[10, 10, 0] for r in results if 0 < r[10, 10, 0] < 255]
    expected = np.array([p for p in peaks if p < 255])
    assert abs(np.mean(got) - expected.mean()) < 4 * expected.std() / math.sqrt(
        len(got)
    )


def test_randaugment_is_fast_enough():
    """Seen: 0.7 ms for 224 pixels on one core; this catches thirty times as much."""
    image, generator = smooth_image(224, 224), rng()
    began = time.process_time()
    for _ in range(30):
        TIMM(image, generator)
    assert (time.process_time() - began) / 30 < 0.02
