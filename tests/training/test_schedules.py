import math

import jax
import pytest

from robustvit.training import schedules

IMAGENET = schedules.cosine(
    5e-4, epochs=100, warmup_epochs=10, warmup_lr=1e-6, min_lr=1e-5
)
CIFAR = schedules.cosine(
    2e-4 * math.sqrt(2), epochs=20, warmup_epochs=5, warmup_lr=1e-6, min_lr=5e-6
)
HIGH_RESOLUTION = schedules.cosine(
    5e-5, epochs=20, warmup_epochs=5, warmup_lr=1e-6, min_lr=5e-6
)


@pytest.mark.parametrize(
    ("schedule", "epoch", "lr"),
    [
        (IMAGENET, 0, 1e-6),
        (IMAGENET, 1, 5.09e-5),
        (IMAGENET, 9, 4.501e-4),
        (IMAGENET, 10, 4.88009e-4),
        (IMAGENET, 50, 2.55e-4),
        (IMAGENET, 99, 1.01209e-5),
        (IMAGENET, 100, 1e-5),
        (IMAGENET, 109, 1e-5),
        (CIFAR, 4, 2.26474e-4),
        (CIFAR, 5, 2.42154e-4),
        (CIFAR, 10, 1.43921e-4),
        (CIFAR, 20, 5e-6),
        (CIFAR, 21, 5e-6),
        (HIGH_RESOLUTION, 5, 4.34099e-5),
        (HIGH_RESOLUTION, 10, 2.75e-5),
    ],
)
def test_published_learning_rates(schedule, epoch, lr):
    assert schedule(epoch) == pytest.approx(lr, rel=5e-6)


def test_resnet_steps():
    at = schedules.step_decay(3.2, every=30, warmup_epochs=5, warmup_lr=3.2)
    rates = [at(e) for e in (0, 29, 30, 59, 60, 99)]
    assert rates == pytest.approx([3.2, 3.2, 0.32, 0.32, 0.032, 0.0032])


def test_rate_is_constant_within_an_epoch_and_traceable():
    at = schedules.per_step(IMAGENET, epochs=110, steps_per_epoch=7)
    steps = [0, 6, 7, 13, 14, 110 * 7 - 1, 10_000]
    expected = [IMAGENET(e) for e in (0, 0, 1, 1, 2, 109, 109)]
    assert [float(at(s)) for s in steps] == pytest.approx(expected, rel=1e-6)
    assert float(jax.jit(at)(7)) == pytest.approx(IMAGENET(1), rel=1e-6)


@pytest.mark.parametrize(
    ("rule", "batch_size", "lr", "expected"),
    [
        ("sqrt", 1024, 2e-4, 2.8284e-4),
        ("linear", 16384, 5e-4, 0.016),
        ("none", 64, 5e-4, 5e-4),
    ],
)
def test_scaling_rules(rule, batch_size, lr, expected):
    assert schedules.scale_lr(lr, batch_size, rule) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "warm", "zero", "expected"),
    [  # eps of 4, at epochs 0, 1, 2, 5, 9, 10, 50
        ("linear", 10, 0, [0, 0.4, 0.8, 2.0, 3.6, 4, 4]),
        ("linear", 10, 2, [0, 0, 0, 1.2, 2.8, 4, 4]),
        ("sine", 10, 0, [0, 0.0979, 0.382, 2.0, 3.9021, 4, 4]),
        ("constant", 10, 0, [4] * 7),
        ("constant", 0, 2, [0, 0, 4, 4, 4, 4, 4]),
        ("linear", 0, 0, [4] * 7),
    ],
)
def test_eps_ramps(name, warm, zero, expected):
    at = schedules.eps_schedule(name, 4.0, warmup_epochs=warm, zero_epochs=zero)
    values = [at(e) for e in (0, 1, 2, 5, 9, 10, 50)]
    assert values == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: schedules.eps_schedule("cubic", 4.0),
        lambda: schedules.scale_lr(1.0, 512, "cubic"),
    ],
)
def test_unknown_names_are_told(call):
    with pytest.raises(ValueError, match="'cubic' is not one of"):
        call()
