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


def test_rate_by_step_is_the_schedule_at_fractions_of_an_epoch():
    """Warm-up, cosine, step and the cool-down, against the formulas."""
    n = 8
    at = schedules.per_step(IMAGENET, epochs=110, steps_per_epoch=n, by="step")
    warm = 1e-6 + (5e-4 - 1e-6) * (3 + 5 / 8) / 10
    cooling = 1e-5 + 0.5 * 4.9e-4 * (1 + math.cos(math.pi * 50.25 / 100))
    steps = [0, 3 * n + 5, 10 * n - 1, 10 * n, 50 * n + 2, 105 * n + 3, 10_000]
    last_warm = 1e-6 + (5e-4 - 1e-6) * (10 - 1 / 8) / 10
    expected = [1e-6, warm, last_warm, 4.88009e-4, cooling, 1e-5, 1e-5]
    assert [float(at(s)) for s in steps] == pytest.approx(expected, rel=5e-6)
    assert float(jax.jit(at)(3 * n + 5)) == pytest.approx(warm, rel=1e-6)

    drops = schedules.step_decay(3.2, every=30)
    at = schedules.per_step(drops, epochs=90, steps_per_epoch=n, by="step")
    rates = [float(at(s)) for s in (0, 30 * n - 1, 30 * n, 60 * n - 1, 60 * n)]
    assert rates == pytest.approx([3.2, 3.2, 0.32, 0.32, 0.032])

    at = schedules.constant(2.0, warmup_epochs=2)
    assert [at(e) for e in (0.5, 1.75, 2, 7.25)] == pytest.approx([0.5, 1.75, 2, 2])


def test_rates_of_revisiting_at():
    """Interpolated between epochs there; the cosine bends less than 1e-4 of the rate.

    arXiv:2303.01870, whose cosine begins where the warm-up ends.
    """
    lr, n = 1e-3, 4
    at = schedules.cosine(
        lr, epochs=50, warmup_epochs=10, warmup_lr=1e-4 * lr, begin=10
    )
    assert at(10) == pytest.approx(lr) and at(50) == 0.0
    assert at(30) == pytest.approx(0.5 * lr)
    assert at(5) == pytest.approx(0.5 * (lr + 1e-4 * lr))
    by_step = schedules.per_step(at, epochs=50, steps_per_epoch=n, by="step")
    for epoch in (0, 9, 10, 25, 48):
        for i in range(n):
            published = at(epoch) + (at(epoch + 1) - at(epoch)) * i / n
            found = float(by_step(epoch * n + i))
            assert found == pytest.approx(published, abs=8e-4 * lr)


def test_held_schedule_is_constant_within_an_epoch():
    at = schedules.held(IMAGENET)
    assert at(12.9) == at(12) == IMAGENET(12) != at(13)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedules.per_step(IMAGENET, 2, 2, by="update"), "'update' is not"),
        (
            lambda: schedules.cosine(1.0, epochs=5, begin=5),
            r"begin=5 must be in \[0, 5",
        ),
    ],
)
def test_bad_schedules_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
