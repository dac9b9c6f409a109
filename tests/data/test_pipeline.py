import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustvit.data import pipeline
from robustvit.data import transforms as T
from robustvit.data.images import CorruptImageError
from robustvit.data.loading import LoaderStats
from robustvit.data.pipeline import eval_batches, train_batches
from robustvit.data.sources import open_source
from robustvit.types import Batch
from tests.data.conftest import encode

SIZE = 8
TRAIN = T.imagenet_train(SIZE)
EVAL = T.EvalTransform(SIZE)
ARRAYS = ("image", "label", "index", "mask")


@dataclass(frozen=True)
class Coloured:
    """Example i is a plain 12x12 image of colour i, with some that cannot be read."""

    size: int = 21
    corrupt: frozenset[int] = frozenset()
    labels: dict[int, int] = field(default_factory=dict)
    class_names: tuple[str, ...] = ("even", "odd")
    num_classes: int = 2

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        png = encode(np.full((12, 12, 3), index, np.uint8), "PNG")
        image = png[:40] if index in self.corrupt else png
        return {"image": image, "label": self.labels.get(index, index % 2)}

    def describe(self, index: int) -> str:
        return f"coloured example {index}"


def _take(batches: Iterable[Batch], count: int) -> list[Batch]:
    return list(itertools.islice(batches, count))


def _assert_equal(got: list[Batch], wanted: list[Batch]) -> None:
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        for name in ARRAYS:
            np.testing.assert_array_equal(a[name], b[name])


def _assert_form(batch: Batch, rows: int) -> None:
    shapes = {name: (batch[name].dtype, batch[name].shape) for name in batch}
    assert shapes == {
        "image": (np.uint8, (rows, SIZE, SIZE, 3)),
        "label": (np.int32, (rows,)),
        "index": (np.int32, (rows,)),
        "mask": (np.bool_, (rows,)),
    }


def _gradient_source() -> Any:
    """Real images, on which two different crops are two different results."""
    return open_source("digits", "test[:21]")


def test_training_batches_say_what_is_in_them() -> None:
    for batch in _take(train_batches(Coloured(), TRAIN, batch_size=6, seed=0), 8):
        _assert_form(batch, 6)
        assert batch["mask"].all()
        np.testing.assert_array_equal(batch["label"], batch["index"] % 2)
        assert (batch["image"] == batch["index"][:, None, None, None]).all()


def test_every_pass_is_another_permutation() -> None:
    batches = train_batches(Coloured(), TRAIN, batch_size=7, seed=3)
    passes = np.concatenate([b["index"] for b in _take(batches, 9)]).reshape(3, 21)
    assert all(sorted(p) == list(range(21)) for p in passes.tolist())
    assert len({tuple(p) for p in passes.tolist()}) == 3
    other = train_batches(Coloured(), TRAIN, batch_size=21, seed=4)
    assert next(other)["index"].tolist() != passes[0].tolist()


def test_augmentation_differs_from_pass_to_pass() -> None:
    source = open_source("digits", "test[:1]")
    batches = _take(train_batches(source, TRAIN, batch_size=1, seed=0), 8)
    assert len({batch["image"].tobytes() for batch in batches}) > 4


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_hosts_share_the_same_global_batches(num_hosts: int) -> None:
    source = _gradient_source()
    alone = _take(train_batches(source, TRAIN, batch_size=8, seed=1), 6)
    hosts = [
        _take(
            train_batches(
                source, TRAIN, batch_size=8, seed=1, host=h, num_hosts=num_hosts
            ),
            6,
        )
        for h in range(num_hosts)
    ]
    joined = [
        {name: np.concatenate([b[name] for b in blocks]) for name in ARRAYS}
        for blocks in zip(*hosts, strict=True)
    ]
    _assert_equal(joined, alone)


@pytest.mark.parametrize(("start", "host", "num_hosts"), [(3, 0, 1), (5, 1, 2)])
def test_starting_at_a_step_is_having_run_to_it(
    start: int, host: int, num_hosts: int
) -> None:
    def batches(start_step: int, num_threads: int) -> Iterable[Batch]:
        return train_batches(
            _gradient_source(),
            TRAIN,
            batch_size=6,
            seed=2,
            start_step=start_step,
            host=host,
            num_hosts=num_hosts,
            num_threads=num_threads,
        )

    whole = _take(batches(0, num_threads=3), start + 4)  # through the end of a pass
    _assert_equal(_take(batches(start, num_threads=1), 4), whole[start:])
    _assert_equal(_take(batches(start, num_threads=0), 4), whole[start:])


def test_a_far_step_costs_nothing() -> None:
    began = time.monotonic()
    next(train_batches(Coloured(), TRAIN, batch_size=4, seed=0, start_step=10**9))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("num_hosts", [1, 2])
def test_evaluation_is_once_in_order_and_padded(num_hosts: int) -> None:
    source = Coloured(size=9)
    hosts = [
        list(eval_batches(source, EVAL, batch_size=4, host=h, num_hosts=num_hosts))
        for h in range(num_hosts)
    ]
    assert {len(batches) for batches in hosts} == {3}
    for batches in hosts:
        for batch in batches:
            _assert_form(batch, 4 // num_hosts)
    blocks = [block for step in zip(*hosts, strict=True) for block in step]
    joined = {name: np.concatenate([b[name] for b in blocks]) for name in ARRAYS}
    mask = joined["mask"]
    assert mask.tolist() == [True] * 9 + [False] * 3
    assert joined["index"].tolist() == [*range(9), 0, 0, 0]
    assert (
        joined["image"][mask].tolist()
        == np.broadcast_to(
            np.arange(9)[:, None, None, None], (9, SIZE, SIZE, 3)
        ).tolist()
    )
    assert not joined["image"][~mask].any()


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_corrupt_image_is_named_and_does_not_hang(mode: str, num_threads: int) -> None:
    source = Coloured(corrupt=frozenset({13}))
    if mode == "train":
        batches = train_batches(
            source, TRAIN, batch_size=4, seed=0, num_threads=num_threads
        )
    else:
        batches = eval_batches(source, EVAL, batch_size=4, num_threads=num_threads)
    with pytest.raises(CorruptImageError) as caught:
        _take(batches, 20)
    message = "coloured example 13 cannot be decoded: 40 bytes of no known format"
    assert str(caught.value) == message
    with pytest.raises(StopIteration):  # an iterator that raised has ended
        next(batches)


def test_corrupt_file_is_named_by_its_path(photos: Path) -> None:
    bad = photos / "dogs" / "02.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    source = open_source(f"folder:{photos}", "train")
    with pytest.raises(CorruptImageError, match=f"folder image {bad} cannot be dec"):
        list(eval_batches(source, EVAL, batch_size=5))


def test_skipping_in_training_takes_the_next_readable() -> None:
    whole = _take(train_batches(Coloured(), TRAIN, batch_size=7, seed=0), 6)
    source, stats = Coloured(corrupt=frozenset({5, 6, 20})), LoaderStats()
    batches = train_batches(
        source, TRAIN, batch_size=7, seed=0, on_error="skip", stats=stats
    )
    substitute = {5: 7, 6: 7, 20: 0}
    for got, intact in zip(_take(batches, 6), whole, strict=True):
        wanted = [substitute.get(i, i) for i in intact["index"].tolist()]
        assert got["index"].tolist() == wanted
        assert (got["image"][..., 0, 0, 0] == wanted).all()
        assert got["mask"].all()
    # Two passes, each with 5 (and then 6), 6 and 20; more of the third is read ahead.
    assert stats.skipped >= 8
    names = {name.split(" cannot")[0] for name in stats.skipped_names}
    assert names == {f"coloured example {i}" for i in (5, 6, 20)}


def test_skipping_in_evaluation_masks() -> None:
    source, stats = Coloured(size=6, corrupt=frozenset({1, 4})), LoaderStats()
    batches = eval_batches(source, EVAL, batch_size=3, on_error="skip", stats=stats)
    joined = {name: np.concatenate([b[name] for b in batches]) for name in ("mask",)}
    assert joined["mask"].tolist() == [True, False, True, True, False, True]
    assert stats.skipped == 2


def test_nothing_readable_is_an_error() -> None:
    source = Coloured(corrupt=frozenset(range(21)))
    batches = train_batches(source, TRAIN, batch_size=4, seed=0, on_error="skip")
    with pytest.raises(CorruptImageError, match="got 21 unreadable images in a row"):
        next(batches)


@pytest.mark.parametrize("label", [-1, 2])
def test_label_out_of_range_is_named(label: int) -> None:
    source = Coloured(labels={3: label})
    message = rf"coloured example 3 has label {label}, wanted it in \[0, 2\)"
    with pytest.raises(ValueError, match=message):
        list(eval_batches(source, EVAL, batch_size=4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 22}, r"got batch_size=22, wanted it in \[1, 21\]"),
        ({"batch_size": 0}, "got batch_size=0"),
        ({"batch_size": 6, "num_hosts": 4}, "wanted a multiple of num_hosts=4"),
        ({"batch_size": 6, "num_hosts": 2, "host": 2}, r"got host=2, wanted it in \[0"),
        ({"batch_size": 6, "start_step": -1}, "got start_step=-1"),
    ],
)
def test_arguments_are_checked_at_once(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_batches(Coloured(), TRAIN, seed=0, **arguments)


def test_steps_per_epoch() -> None:
    assert pipeline.steps_per_epoch(Coloured(), 4) == 5
    with pytest.raises(ValueError, match=r"batch_size=22, wanted it in \[1, 21\]"):
        pipeline.steps_per_epoch(Coloured(), 22)


@pytest.mark.parametrize("how", ["close", "collect"])
def test_threads_end_with_the_iterator(how: str) -> None:
    before = set(threading.enumerate())
    batches = train_batches(Coloured(), TRAIN, batch_size=4, seed=0, num_threads=3)
    next(batches)
    readers = set(threading.enumerate()) - before
    assert readers
    if how == "close":
        batches.close()
    else:
        del batches
        gc.collect()
    for reader in readers:
        reader.join(timeout=5)
        assert not reader.is_alive()


def test_an_interrupted_program_exits() -> None:
    code = (
        "from robustvit.data import pipeline, sources, transforms\n"
        "source = sources.open_source('digits', 'train')\n"
        "batches = pipeline.train_batches(\n"
        "    source, transforms.digits_train(), batch_size=64, seed=0)\n"
        "next(batches)\n"
        "raise KeyboardInterrupt\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert "KeyboardInterrupt" in run.stderr
