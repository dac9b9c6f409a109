"""What configs say of rates, accumulation, patience and the watchdog reaches a run."""

import shutil

import chex
import pytest

from robustvit import runs
from robustvit.config_files import load_config
from robustvit.training.checkpoint import Checkpoints
from robustvit.training.loop import fit
from tests.small_run import QUICKSTART, SMALL, records


def build(*overrides, variant=""):
    spec = QUICKSTART + variant
    return runs.build(load_config(spec, [f"--config.{o}" for o in overrides]))


def test_rates_and_epochs_count_updates():
    """1293 images in batches of 64 are 20 steps: 6 updates of 3, and 2 steps over."""
    rate = ("optim.lr=1.0", "optim.lr_scaling=linear", "optim.accumulate=3")
    run = build(*rate, "optim.schedule.args.warmup_epochs=0")
    assert run.data.steps_per_epoch == 18 and run.settings.accumulate == 3
    assert run.lr_at(0) == pytest.approx(64 * 3 / 512)
    assert run.lr_at(1.5) == run.lr_at(1) < run.lr_at(0)
    by_step = build(*rate, "optim.schedule.by=step")
    assert run.lr_at(5) < by_step.lr_at(4.5) < run.lr_at(4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.accumulate=21"], r"optim.accumulate=21 must be in .1, 20"),
        (["optim.schedule.by=update"], "optim.schedule.by='update' is not one of"),
        (["checkpoint.patience=-1"], "checkpoint.patience=-1 must be at least 0"),
        (["watchdog.every=-5"], "watchdog.every=-5 must be at least 1"),
        (["watchdog.every=5", "watchdog.steps=2"], "watchdog.steps=2 must be more"),
        (["watchdog.every=5", "watchdog.action=halt"], "action='halt' is not one of"),
    ],
)
def test_what_cannot_be_is_told(overrides, message):
    with pytest.raises(ValueError, match=message):
        build(*overrides)


def test_the_watchdog_of_a_config():
    assert build().watchdog is None
    run = build("watchdog.every=40", "watchdog.action=rollback", "watchdog.shrink=0.25")
    dog = run.watchdog
    assert (dog.every, dog.steps, dog.gap, dog.action) == (40, 10, 0.2, "rollback")
    assert dog.attack == run.attack
    assert dog.objective(0.25).forwards == run.objective.forwards
    with pytest.raises(ValueError, match="the objective standard has no attack"):
        build("watchdog.every=40", variant=":standard")


def test_all_of_it_trains_and_resumes_from_within_an_update(tmp_path):
    """Rate by step, 3 steps an update, average, watchdog: cut off at step 10 of 12."""
    extra = (
        "--config.optim.accumulate=3", "--config.optim.schedule.by=step",
        "--config.optim.ema_decay=0.9", "--config.watchdog.every=4",
        "--config.watchdog.action=rollback", "--config.checkpoint.every=5",
        "--config.checkpoint.patience=5", "--config.checkpoint.keep=9",
    )  # fmt: skip
    config = load_config(QUICKSTART, [*SMALL, *extra])
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def train(folder):
        run = runs.build(config)
        return fit(**run.fit_arguments(), workdir=folder).state

    whole.mkdir()
    expected = train(whole)
    shutil.copytree(whole, cut)
    with Checkpoints(cut) as checkpoints:
        assert 10 in checkpoints.steps()  # 3 updates and a step
        checkpoints.drop_after(10)
    found = train(cut)
    assert int(found.step) == 12
    for name in ("params", "opt_state", "ema"):
        chex.assert_trees_all_equal(getattr(found, name), getattr(expected, name))
    readings = [r for r in records(cut) if "watchdog/gap" in r]
    assert [r["step"] for r in readings] == [4, 8, 12]
    assert readings == [r for r in records(whole) if "watchdog/gap" in r]
