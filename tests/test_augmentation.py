"""The augmentation keys of a config: what they build, and what they refuse."""

import contextlib

import numpy as np
import pytest

from robustvit import augmentation, runs
from robustvit.config_files import load_config
from robustvit.data.augment import Augment
from robustvit.data.mixing import Mixing
from robustvit.data.rand_augment import RandAugment
from robustvit.data.three_augment import ThreeAugment
from robustvit.training import loop
from tests.small_run import QUICKSTART, SMALL
from tests.tiny import TinyNet

JITTER = ("data.augment.brightness=0.4", "data.augment.contrast=0.3",
          "data.augment.saturation=0.2", "data.augment.erasing=0.25")  # fmt: skip
RAND = "data.policy=rand-m9-mstd0.5-inc1"
MIXED = ("data.mixing.mixup=0.8", "data.mixing.cutmix=1.0")


EVERYTHING = (RAND, *JITTER, *MIXED, "data.repeats=2", "data.batch_size=16")


def config(*overrides):
    return load_config(QUICKSTART, (*SMALL, *(f"--config.{o}" for o in overrides)))


def build(*overrides):
    return augmentation.build(runs.resolve(config(*overrides)))


def test_nothing_is_the_default():
    transform, augment, mixing = build()
    assert augment is None and mixing is None
    assert [type(op).__name__ for op in transform.ops][-1] == "RandomRotation"


def test_randaugment_replaces_colour_jitter_and_nothing_else():
    transform, augment, _ = build(RAND, *JITTER)
    assert RandAugment() in transform.ops
    assert augment == Augment(erasing=0.25)
    _, augment, _ = build(RAND, *JITTER[:3])
    assert augment is None
    _, augment, _ = build(*JITTER)
    assert augment == Augment(0.4, 0.3, 0.2, 0.25)


def test_three_augment_keeps_colour_jitter():
    transform, augment, _ = build("data.policy=3-augment", *JITTER)
    assert ThreeAugment() in transform.ops
    assert augment == Augment(0.4, 0.3, 0.2, 0.25)


def test_mixing_has_the_classes_of_the_model():
    _, _, mixing = build(*MIXED, "data.mixing.prob=0.5")
    assert mixing == Mixing(10, 0.8, 1.0, prob=0.5)
    _, _, mixing = build("data.mixing.cutmix=1", "model.args.num_classes=17")
    assert mixing == Mixing(17, 0.0, 1.0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.policy=autoaugment"],
            "unknown data.policy 'autoaugment': there are 3-",
        ),
        (["data.policy=rand-m9-q2"], "got 'q2' in policy 'rand-m9-q2'"),
        (["data.repeats=3"], "wanted a multiple of repeats=3"),  # of 32
        (["data.repeats=0"], "wanted a multiple of repeats=0"),
        ([MIXED[0], "data.batch_size=33"], "data.batch_size=33 must be even"),
        (["data.mixing.mixup=-1"], "got mixup=-1.0, wanted at least 0"),
        (["data.transform.name=cifar", "data.repeats=2"], "would be the same"),
    ],
)
def test_errors(overrides, message):
    with pytest.raises(ValueError, match=message):
        runs.build(config(*overrides))


def test_batches_of_all_of_it():
    data = runs.build(config(*EVERYTHING)).data
    assert data.steps_per_epoch == 256 * 2 // 16
    plain = runs.build(config("data.batch_size=8")).data
    with (
        contextlib.closing(data.train(3)) as batches,
        contextlib.closing(plain.train(3)) as without,
    ):
        batch, clean = next(batches), next(without)
    assert batch["view"].tolist() == [0, 1] * 8
    np.testing.assert_array_equal(batch["index"][::2], clean["index"])
    np.testing.assert_array_equal(batch["index"][1::2], clean["index"])


class Told(Exception):
    """With what the train step was built."""


def test_the_loop_builds_its_step_with_them(monkeypatch, tmp_path):
    def make_train_step(*_, augment, mixing, **__):
        raise Told(augment, mixing)

    monkeypatch.setattr(loop, "make_train_step", make_train_step)
    run = runs.build(config(*EVERYTHING))
    with pytest.raises(Told) as told:
        loop.fit(**{**run.fit_arguments(), "model": TinyNet()}, workdir=tmp_path)
    expected = Augment(erasing=0.25), Mixing(10, 0.8, 1.0)
    assert told.value.args == expected == (run.data.augment, run.data.mixing)
