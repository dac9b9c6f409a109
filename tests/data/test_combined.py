"""Batches of real and of generated images."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from robustvit.data import combined, pipeline
from robustvit.data import transforms as T
from robustvit.data.combined import Mix, combined_batches
from robustvit.data.loading import LoaderStats
from robustvit.data.sources import open_source
from tests.data.test_pipeline import ARRAYS, Coloured, _assert_equal

TRAIN = T.imagenet_train(8)
REAL = Coloured(21)
MIX = Coloured(40)


@dataclass(frozen=True)
class ThreeClasses(Coloured):
    class_names: tuple[str, ...] = ("0", "1", "2")
    num_classes: int = 3


def _take(count, real=REAL, mix=MIX, ratio=0.25, **options):
    options = {"batch_size": 8, "seed": 3, **options}
    batches = combined_batches(real, Mix(mix, ratio), TRAIN, **options)
    return list(itertools.islice(batches, count))


@pytest.mark.parametrize(
    ("ratio", "batch_size", "rows"),
    [(0.5, 8, 4), (0.25, 8, 2), (0.3, 8, 2), (0.29, 100, 29), (0.0, 8, 0),
     (1.0, 8, 8), (0.7, 10, 7)],
)  # fmt: skip
def test_rows_of_the_mix(ratio: float, batch_size: int, rows: int) -> None:
    assert Mix(MIX, ratio).rows(batch_size) == rows


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_every_batch_has_its_share(ratio: float) -> None:
    for batch in _take(6, ratio=ratio):
        from_mix = batch["index"] >= len(REAL)
        assert from_mix.sum() == int(8 * ratio)
        place = np.where(from_mix, batch["index"] - len(REAL), batch["index"])
        assert (batch["image"] == place[:, None, None, None]).all()
        np.testing.assert_array_equal(batch["label"], place % 2)
        assert batch["mask"].all() and batch["index"].dtype == np.int32


def test_rows_are_permuted_and_both_are_shuffled() -> None:
    batches = _take(10, ratio=0.5)
    from_mix = np.stack([batch["index"] >= len(REAL) for batch in batches])
    assert len({tuple(rows) for rows in from_mix.tolist()}) > 5
    index = np.concatenate([batch["index"] for batch in batches])
    first_pass = index[index >= len(REAL)] - len(REAL)
    assert sorted(first_pass.tolist()) == list(range(40))  # 10 steps of 4: all once
    assert first_pass.tolist() != sorted(first_pass.tolist())


def test_an_epoch_ends_with_the_first_of_the_two() -> None:
    # Half-and-half needs twice the steps for the real images.
    assert pipeline.steps_per_epoch(REAL, 8) == 2
    steps = [
        combined.steps_per_epoch(REAL, Mix(Coloured(n), ratio), 8)
        for n, ratio in ((1000, 0.5), (17, 0.5), (1000, 0.75), (16, 1.0), (5, 0.0))
    ]
    assert steps == [5, 4, 10, 2, 2]


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_hosts_share_the_same_global_batches(num_hosts: int) -> None:
    digits = open_source("digits", "test[:21]"), open_source("digits", "train[:40]")
    alone = _take(5, *digits)
    hosts = [
        _take(5, *digits, host=host, num_hosts=num_hosts) for host in range(num_hosts)
    ]
    joined = [
        {name: np.concatenate([b[name] for b in blocks]) for name in ARRAYS}
        for blocks in zip(*hosts, strict=True)
    ]
    _assert_equal(joined, alone)


@pytest.mark.parametrize("start", [1, 4, 11])
def test_starting_at_a_step_is_having_run_to_it(start: int) -> None:
    digits = open_source("digits", "test[:21]"), open_source("digits", "train[:40]")
    whole = _take(start + 2, *digits, ratio=0.5)
    _assert_equal(_take(2, *digits, ratio=0.5, start_step=start), whole[start:])


def test_seeds_differ() -> None:
    first, second = (_take(1, seed=seed)[0]["index"].tolist() for seed in (0, 1))
    assert first != second


def test_the_same_source_twice_is_not_the_same_crops() -> None:
    digits = open_source("digits", "test[:64]")
    batch = _take(1, digits, digits, ratio=0.5, batch_size=128)[0]
    index, images = batch["index"] % 64, batch["image"]
    pairs = [np.flatnonzero(index == i) for i in range(64)]
    same = sum((images[a] == images[b]).all() for a, b in pairs)
    assert same < 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 1.2}, r"got ratio=1.2 of the mix, wanted it in \[0, 1\]"),
        ({"ratio": -0.1}, r"got ratio=-0.1"),
        ({"ratio": 0.1}, "less than one image in batch_size=8"),
        ({"mix": ThreeClasses(40)}, "3 classes, the real ones 2: wanted the same"),
        ({"mix": Coloured(1)}, r"got batch_size=2, wanted it in \[1, 1\]"),
        ({"batch_size": 9, "num_hosts": 2}, "wanted a multiple of num_hosts=2"),
        ({"start_step": -1}, "got start_step=-1"),
    ],
)
def test_bad_arguments(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _take(1, **change)


def test_unreadable_images_of_the_mix_are_skipped_or_named() -> None:
    broken = Coloured(40, corrupt=frozenset({5}))
    with pytest.raises(ValueError, match="coloured example 5 cannot be decoded"):
        _take(20, mix=broken, ratio=0.5)
    stats = LoaderStats()
    batches = _take(20, mix=broken, ratio=0.5, on_error="skip", stats=stats)
    assert len(batches) == 20 and stats.skipped > 0
