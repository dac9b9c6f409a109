"""A planted collapse, on real images: noticed while it happens, and undone."""

import jax
import numpy as np
import pytest

from robustvit.attacks import PGD
from robustvit.training.step import evaluation_variables, make_eval_step
from tests.training import collapse

LONG = PGD(10, 2.5 * 16 / 255 / 10)


@pytest.fixture(scope="module")
def data(tfds_dir):
    return collapse.in_memory(*collapse.cifar(tfds_dir, 4512))


def robust_accuracy(data, state):
    """Under PGD-10, on the images held out."""
    step = jax.jit(make_eval_step(collapse.PatchNet(), LONG))
    (batch,) = data.val()
    variables = evaluation_variables(state)
    sums = step(variables, batch, collapse.THREAT, jax.random.key(1))
    return float(sums["robust"] / sums["count"])


@pytest.mark.slow
def test_collapse_is_seen_and_undone(data, tmp_path):
    """Some minute. The steps are those seen when PGD-10 was measured every 10 steps.

    It falls from 58% to under half of that at step 280; the alarm must come within
    200 steps. Left alone the run ends near 11%; after two rollbacks it stays near 45%.
    """
    watched = {"every": 50, "action": "warn"}
    left = collapse.train(data, tmp_path / "left", epochs=12, watchdog=watched)
    alarms = [r["step"] for r in left.history if "watchdog/alarm" in r]
    assert 230 <= alarms[0] <= 480

    watched = {"every": 50, "action": "rollback"}
    saved = collapse.train(data, tmp_path / "saved", epochs=12, watchdog=watched)
    rollbacks = [r for r in saved.history if "watchdog/rollback" in r]
    assert 1 <= len(rollbacks) <= 4
    before = robust_accuracy(data, left.state)
    after = robust_accuracy(data, saved.state)
    assert before < 0.25 and after > 0.35, (before, after)
    # What is learned is not the share of the larger class.
    clean = [r["val/clean_accuracy"] for r in saved.history if "val/loss" in r]
    assert np.max(clean) > 0.72
