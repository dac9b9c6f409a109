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
    return collapse.in_memory(*collapse.cifar(tfds_dir, 12_000))


def robust_accuracy(data, state):
    """Under PGD-10, on the images held out."""
    step = jax.jit(make_eval_step(collapse.PatchNet(), LONG))
    (batch,) = data.val()
    variables = evaluation_variables(state)
    sums = step(variables, batch, collapse.THREAT, jax.random.key(1))
    return float(sums["robust"] / sums["count"])


@pytest.mark.slow
def test_collapse_is_seen_and_undone(data, tmp_path):
    """Some minute. The numbers are of PGD-10 on the images held out.

    It is 63% at step 500, 58% at 650 and, left alone, 13% in the end. The first alarm
    comes at step 550, the first rollback at 650; after two it ends with 49%.
    """
    watched = {"every": 50, "action": "warn"}
    left = collapse.train(data, tmp_path / "left", epochs=18, watchdog=watched)
    alarms = [r["step"] for r in left.history if "watchdog/alarm" in r]
    assert 450 <= alarms[0] <= 850

    watched = {"every": 50, "action": "rollback"}
    saved = collapse.train(data, tmp_path / "saved", epochs=18, watchdog=watched)
    rollbacks = [r for r in saved.history if "watchdog/rollback" in r]
    assert 1 <= len(rollbacks) <= 4
    before = robust_accuracy(data, left.state)
    after = robust_accuracy(data, saved.state)
    assert before < 0.25 and after > 0.4, (before, after)
    # What is learned is not the share of the larger class.
    clean = [r["val/clean_accuracy"] for r in saved.history if "val/loss" in r]
    assert np.max(clean) > 0.72
