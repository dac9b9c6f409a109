"""A run that is killed, stopped and restarted ends like one that was left alone."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from robustvit.runs import open_run
from tests.small_run import records, train_arguments

EPOCHS = ("--config.epochs=6", "--config.checkpoint.every=5", "--config.log.every=1")
SLOWER = ("--config.model.args.depth=2", "--config.optim.ema_decay=0.9")


def start(workdir):
    cache = workdir.parents[1] / "jax_cache"  # only the first start compiles
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    command = [sys.executable, "-m", "robustvit"]
    return subprocess.Popen(
        [*command, *train_arguments(workdir, *EPOCHS, *SLOWER)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def last_step(workdir):
    """The last step that a run, dead or alive, has logged; 0 before the first."""
    if not (workdir / "metrics.jsonl").exists():
        return 0
    return max((r["step"] for r in records(workdir)), default=0)


def signal_after(workdir, steps, number):
    """Start, send a signal that many steps past the last; its exit code and output."""
    step = last_step(workdir) + steps
    process = start(workdir)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if last_step(workdir) >= step:
            process.send_signal(number)
            break
        time.sleep(0.01)
    _, text = process.communicate(timeout=240)
    return process.returncode, text


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("quiet") / "run"
    _, text = start(workdir).communicate(timeout=400)
    assert "best: step" in text, text
    return workdir


def test_killed_terminated_and_interrupted_run_is_the_quiet_run(
    quiet, tmp_path_factory
):
    workdir = tmp_path_factory.mktemp("disturbed") / "run"
    code, _ = signal_after(workdir, 12, signal.SIGKILL)
    assert code == -signal.SIGKILL
    saved = open_run(str(workdir), "latest")[3]
    assert saved >= 5  # whichever was whole by then

    code, text = signal_after(workdir, 2, signal.SIGTERM)
    assert code == 42, text
    assert f"training from step {saved}" in text
    assert "SIGTERM: saving a checkpoint" in text and "the same command" in text
    stopped_at = open_run(str(workdir), "latest")[3]
    assert stopped_at > saved
    assert f"stopped at step {stopped_at}" in text

    code, text = signal_after(workdir, 3, signal.SIGINT)
    assert code == 130 and f"training from step {stopped_at}" in text

    _, text = start(workdir).communicate(timeout=400)
    assert "best: step" in text, text

    _, expected, _, step = open_run(str(quiet), "latest")
    _, found, _, found_step = open_run(str(workdir), "latest")
    assert step == found_step == 48
    assert len(jax.tree.leaves(expected)) > 40
    jax.tree.map(np.testing.assert_array_equal, found, expected)

    def losses(folder):
        return {
            r["step"]: r["train/loss"] for r in records(folder) if "train/loss" in r
        }

    def validation(folder):
        return [r for r in records(folder) if "val/loss" in r]

    assert losses(workdir) == losses(quiet)  # each step once, with the same loss
    assert validation(workdir) == validation(quiet)
