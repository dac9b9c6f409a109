import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustvit.data.augment import Augment, color_jitter, random_erasing

ALL = Augment(brightness=0.4, contrast=0.4, saturation=0.4, erasing=0.5)


def _images(count: int, *, height: int = 16, width: int = 12) -> jax.Array:
    return jax.random.uniform(jax.random.key(7), (count, height, width, 3))


def _keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


def _jitter_reference(image: np.ndarray, key: jax.Array, strengths) -> np.ndarray:
    """The definition, op by op, with the factors and the order that the key gives."""
    k_order, k_factor = jax.random.split(key)
    unit = np.asarray(jax.random.uniform(k_factor, (3,)))
    low = np.maximum(0, 1 - np.array(strengths))
    factors = low + unit * (1 + np.array(strengths) - low)

    def grey(x: np.ndarray) -> np.ndarray:
        luma = 0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]
        return np.repeat(luma[..., None], 3, axis=-1)

    ops = (
        lambda x, f: f * x,
        lambda x, f: f * x + (1 - f) * grey(x).mean(),
        lambda x, f: f * x + (1 - f) * grey(x),
    )
    for op in np.asarray(jax.random.permutation(k_order, 3)):
        image = np.clip(ops[op](image, factors[op]), 0, 1)
    return image


@pytest.mark.parametrize("strengths", [(0.4, 0.4, 0.4), (1.5, 0.2, 0.0), (0, 0, 3.0)])
def test_jitter_is_its_definition(strengths: tuple[float, ...]) -> None:
    images, keys = _images(8), _keys(8)
    brightness, contrast, saturation = (float(s) for s in strengths)
    got = color_jitter(
        images, keys, brightness=brightness, contrast=contrast, saturation=saturation
    )
    assert 0 <= got.min() <= got.max() <= 1
    for i in range(8):
        image = np.asarray(images[i], np.float64)
        expected = _jitter_reference(image, keys[i], strengths)
        # A few float32 roundings of numbers up to 4.
        np.testing.assert_allclose(got[i], expected, atol=2e-6)


def test_brightness_factors_are_uniform() -> None:
    images = jnp.full((2000, 1, 1, 3), 0.5)
    got = color_jitter(
        images, _keys(2000), brightness=0.4, contrast=0.0, saturation=0.0
    )
    factors = np.sort(np.asarray(got)[:, 0, 0, 0] / 0.5)
    uniform = np.linspace(0.6, 1.4, 2000)
    # 1.63 / sqrt(n): the 1 % quantile of the Kolmogorov-Smirnov distance
    assert np.abs(factors - uniform).max() / 0.8 < 1.63 / math.sqrt(2000)


@pytest.fixture(scope="module")
def erased() -> tuple[np.ndarray, np.ndarray]:
    """800 erased images that were -1, which is no noise value, and where it is."""
    images = jnp.full((800, 64, 48, 3), -1.0)
    got = np.asarray(random_erasing(images, _keys(800), probability=1.0))
    return got, (got != -1).any(-1)


def test_erasing_is_a_rectangle_of_the_right_area_and_aspect(erased) -> None:
    _, where = erased
    assert where.any((1, 2)).all()
    heights, widths = where.any(2).sum(1), where.any(1).sum(1)
    np.testing.assert_array_equal(heights * widths, where.sum((1, 2)))  # no holes
    areas, aspects = heights * widths / (64 * 48), heights / widths
    # Rounding sides of at least 4 pixels to whole ones moves both by up to an eighth.
    assert areas.min() > 0.02 * 0.87
    assert areas.max() < 1 / 3 * 1.05
    assert aspects.min() > 0.3 * 0.87
    assert aspects.max() < 3.3 * 1.13
    # Few rectangles do not fit, so the mean area is nearly that of U(0.02, 1/3).
    assert abs(areas.mean() - 0.1767) < 0.012  # four standard errors
    assert abs(np.log(aspects).mean()) < 0.1


def test_erasing_places_rectangles_up_to_every_edge(erased) -> None:
    for axis, side in ((2, 64), (1, 48)):
        lines = erased[1].any(axis)
        room = side - lines.sum(1)  # the first line is uniform over 0 .. room
        place = np.sort((lines.argmax(1) + 0.5) / (room + 1))
        assert min(lines[:, 0].sum(), lines[:, -1].sum()) > 10
        assert np.abs(place - np.linspace(0, 1, 800)).max() < 1.63 / math.sqrt(800)


def test_erasing_noise_is_a_truncated_normal_per_pixel_and_channel(erased) -> None:
    noise = erased[0][erased[1]]
    assert noise.min() >= 0
    assert noise.max() <= 1
    # A normal cut at two standard deviations keeps 0.8796 of its standard deviation.
    assert abs(noise.mean() - 0.5) < 0.002
    assert abs(noise.std() - 0.25 * 0.8796) < 0.002
    assert abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.01


def test_erasing_probability() -> None:
    images = jnp.full((800, 12, 8, 3), -1.0)
    got = random_erasing(images, _keys(800), probability=0.2)
    changed = np.asarray(got != images).any((1, 2, 3))
    assert abs(changed.mean() - 0.2) < 0.057  # four standard deviations


def test_result_does_not_depend_on_the_place_in_the_batch() -> None:
    images, keys, augment = _images(8), _keys(8), jax.jit(ALL)
    whole = augment(images, keys)
    backwards = augment(images[::-1], keys[::-1])[::-1]
    np.testing.assert_array_equal(whole, backwards)
    halves = [augment(images[i : i + 4], keys[i : i + 4]) for i in (0, 4)]
    # For another shape the compiler may contract other multiplications and additions.
    np.testing.assert_allclose(whole, jnp.concatenate(halves), atol=1e-6)
    assert whole.dtype == jnp.float32
    assert whole.shape == images.shape


def test_all_zero_is_the_identity() -> None:
    images = _images(4)
    np.testing.assert_array_equal(Augment()(images, _keys(4)), images)
    same = color_jitter(images, _keys(4), brightness=0.0, contrast=0.0, saturation=0.0)
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(
        random_erasing(images, _keys(4), probability=0.0), images
    )


def test_augment_is_a_hashable_configuration() -> None:
    assert hash(ALL) == hash(Augment(0.4, 0.4, 0.4, 0.5))
    with pytest.raises(ValueError, match=r"got contrast=-0.1, wanted at least 0"):
        Augment(contrast=-0.1)
    with pytest.raises(ValueError, match=r"got erasing=2.0, wanted it in \[0, 1\]"):
        Augment(erasing=2.0)
