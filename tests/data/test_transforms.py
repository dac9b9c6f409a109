import io
import math

import numpy as np
import pytest
from PIL import Image

from robustvit.data import images
from robustvit.data import transforms as T
from tests.data.conftest import encode, smooth_image


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _uniform_distance(samples: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of samples in [0, 1] to the uniform distribution."""
    cdf = (np.arange(len(samples)) + 0.5) / len(samples)
    return float(np.abs(np.sort(samples) - cdf).max())


@pytest.mark.parametrize(
    ("format_", "mode"),
    [("JPEG", None), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"),
     ("PNG", "LA"), ("PNG", "1"), ("GIF", None), ("WEBP", None), ("BMP", None)],
)  # fmt: skip
def test_decode_is_pillows_rgb(format_: str, mode: str | None) -> None:
    data = encode(smooth_image(37, 53), format_, mode=mode)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(images.decode(data), expected)


def test_sixteen_bits_lose_the_low_eight() -> None:
    deep = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    pixels = images.decode(encode(deep, "PNG"))
    np.testing.assert_array_equal(pixels, np.repeat((deep >> 8)[..., None], 3, -1))


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("kept", [0, 3, 40, 0.5, 0.9])
def test_truncated_images_are_corrupt(format_: str, kept: float) -> None:
    data = encode(smooth_image(64, 64), format_)
    part = data[: int(kept * len(data)) if kept < 1 else int(kept)]
    with pytest.raises(images.CorruptImageError, match=f"{len(part)} bytes"):
        images.decode(part)


def test_box_has_uniform_area_and_log_uniform_ratio() -> None:
    # So small and square a box always fits, so nothing is rejected; the image is large
    # enough for rounding not to matter.
    op = T.RandomResizedCrop(8, scale=(0.05, 0.5), ratio=(0.5, 2.0))
    rng = _rng()
    boxes = np.array([op.box(100_000, 100_000, rng) for _ in range(4000)]) / 100_000
    top, left, height, width = boxes.T
    tolerance = 1.63 / math.sqrt(4000)  # the 1 % quantile of the KS distance
    assert _uniform_distance((height * width - 0.05) / 0.45) < tolerance
    assert _uniform_distance(np.log2(width / height) / 2 + 0.5) < tolerance
    assert _uniform_distance(top / (1 - height)) < tolerance
    assert _uniform_distance(left / (1 - width)) < tolerance


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (100, 100, (0, 0, 100, 100)),  # the ratio is in the range: all of the image
        (100, 400, (0, 133, 100, 133)),  # too wide: width 100 * 4/3
        (400, 100, (133, 0, 133, 100)),  # too high: height 100 / (3/4)
    ],
)
def test_box_falls_back_to_the_centre(
    height: int, width: int, box: tuple[int, ...]
) -> None:
    op = T.RandomResizedCrop(8, scale=(5.0, 6.0))  # never fits
    assert op.box(height, width, _rng()) == box


def test_areas_above_one_fall_back_as_often_as_they_must() -> None:
    # Ratio 1 and a square image: a try fits unless its area is above 1, half of the
    # time, up to rounding; ten tries in a row hardly ever fail, so the area of what
    # comes out is uniform in (0.8, 1).
    op = T.RandomResizedCrop(32, scale=(0.8, 1.2), ratio=(1.0, 1.0))
    rng = _rng()
    sides = np.array([op.box(10_000, 10_000, rng)[2] for _ in range(2000)])
    areas = (sides / 10_000) ** 2
    assert _uniform_distance((areas - 0.8) / 0.2) < 1.63 / math.sqrt(2000)
    assert areas.max() <= 1


def test_crop_takes_exactly_its_box() -> None:
    image = smooth_image(60, 80)
    op = T.RandomResizedCrop(20, scale=(400 / 4800, 400 / 4800), ratio=(1.0, 1.0))
    top, left, height, width = op.box(60, 80, _rng(3))
    assert (height, width) == (20, 20)
    cut = image[top : top + 20, left : left + 20]
    np.testing.assert_array_equal(op(image, _rng(3)), cut)
    np.testing.assert_array_equal(op(encode(image, "PNG"), _rng(3)), cut)


@pytest.mark.parametrize(
    ("height", "width", "mean"), [(100, 140, 1.0), (1200, 900, 3.0)]
)
def test_crop_is_close_to_pillows_resize(height: int, width: int, mean: float) -> None:
    # cv2 for Pillow costs 1 / 255; decoding at a reduced size moves the box by up to
    # half of a small pixel, which is less than half a pixel of the result.
    data = encode(smooth_image(height, width))
    op = T.RandomResizedCrop(64, scale=(0.5, 1.0))
    for seed in range(5):
        top, left, h, w = op.box(height, width, _rng(seed))
        expected = Image.open(io.BytesIO(data)).resize(
            (64, 64), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h)
        )
        difference = op(data, _rng(seed)).astype(int) - np.asarray(expected)
        assert np.abs(difference).mean() < mean


def test_large_jpegs_are_decoded_small() -> None:
    data = encode(smooth_image(800, 1001))
    assert images.decode(data).shape == (800, 1001, 3)
    assert images.decode(data, shrink=4).shape == (200, 251, 3)


def test_padded_crop_is_a_shift_with_zeros() -> None:
    image = smooth_image(32, 32) // 2 + 100  # no zero in it
    op = T.RandomCrop(32, padding=4)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    shifts = {
        (i, j): padded[i : i + 32, j : j + 32].tobytes()
        for i in range(9)
        for j in range(9)
    }
    place = {crop: shift for shift, crop in shifts.items()}
    seen = {place[op(image, _rng(seed)).tobytes()] for seed in range(1000)}
    assert len(seen) == 81  # each missed with probability 4e-6


def test_padded_crop_of_a_small_image() -> None:
    with pytest.raises(ValueError, match=r"shape \(20, 32, 3\), wanted sides of .* 24"):
        T.RandomCrop(32, padding=4)(smooth_image(20, 32), _rng())


def test_rotation_is_pillows() -> None:
    image = smooth_image(32, 32)
    assert np.array_equal(T.RandomRotation(0.0)(image, _rng()), image)
    angle = _rng(5).uniform(-30, 30)
    expected = Image.fromarray(image).rotate(angle, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(T.RandomRotation(30.0)(image, _rng(5)), expected)


def test_flip_happens_with_its_probability() -> None:
    image, rng = smooth_image(8, 8), _rng()
    flips = []
    for _ in range(2000):
        result = T.HorizontalFlip(0.3)(image, rng)
        flips.append(np.array_equal(result, image[:, ::-1]))
        assert flips[-1] or np.array_equal(result, image)
    assert abs(np.mean(flips) - 0.3) < 0.04  # four standard deviations


@pytest.mark.parametrize(
    ("transform", "source_shape"),
    [
        (T.imagenet_train(24), (60, 45)),
        (T.imagenet_train(32, scale=(0.8, 1.2), ratio=(0.95, 1.05)), (32, 32)),
        (T.cifar_train(32), (32, 32)),
        (T.cifar_train(24, degrees=2.0), (32, 48)),
        (T.digits_train(32), (32, 32)),
    ],
)
def test_training_transforms(
    transform: T.TrainTransform, source_shape: tuple[int, int]
) -> None:
    data = encode(smooth_image(*source_shape), "PNG")
    first, again = transform(data, _rng(1)), transform(data, _rng(1))
    assert first.dtype == np.uint8
    assert first.shape == (transform.size, transform.size, 3)
    np.testing.assert_array_equal(first, again)
    assert len({transform(data, _rng(i)).tobytes() for i in range(20)}) > 10
    assert transform == eval(repr(transform), vars(T))  # a config can print and compare


@pytest.mark.parametrize(
    ("height", "width", "crop_pct", "resized", "corner"),
    [
        (50, 70, 1.0, (32, 44), (0, 6)),  # 32 * 70 / 50 = 44.8, cut to 44
        (70, 50, 0.875, (50, 36), (9, 2)),  # 32 / 0.875 = 36.57, cut to 36
        (20, 30, 0.9, (35, 52), (2, 10)),  # enlarged; (35 - 32) / 2 goes to even
    ],
)
def test_evaluation_is_pillows_resize_and_centre_crop(
    height: int,
    width: int,
    crop_pct: float,
    resized: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    image = smooth_image(height, width)
    large = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BICUBIC)
    top, left = corner
    expected = np.asarray(large)[top : top + 32, left : left + 32]
    transform = T.EvalTransform(32, crop_pct=crop_pct)
    np.testing.assert_array_equal(transform(image), expected)
    np.testing.assert_array_equal(transform(encode(image, "PNG")), expected)


def test_evaluation_leaves_the_right_size_alone() -> None:
    image = smooth_image(32, 32)
    np.testing.assert_array_equal(T.EvalTransform(32)(image), image)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T.RandomResizedCrop(0), "got size=0"),
        (lambda: T.RandomResizedCrop(8, scale=(0.5, 0.1)), r"got scale=\(0.5, 0.1\)"),
        (lambda: T.RandomResizedCrop(8, ratio=(0.0, 1.0)), "got ratio="),
        (lambda: T.RandomCrop(8, padding=-1), "got padding=-1"),
        (lambda: T.RandomRotation(-3.0), "got degrees=-3.0"),
        (lambda: T.HorizontalFlip(1.5), "got p=1.5"),
        (lambda: T.TrainTransform((T.HorizontalFlip(),)), "wanted a RandomResizedCrop"),
        (lambda: T.EvalTransform(8, crop_pct=1.1), "got crop_pct=1.1"),
        (lambda: T.EvalTransform(8, interpolation="cubic"), "wanted one of .*bicubic"),
    ],
)
def test_arguments_are_checked_at_construction(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
