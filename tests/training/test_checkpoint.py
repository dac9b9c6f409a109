"""Which checkpoints stay, and which one is the best."""

import jax
import jax.numpy as jnp
import pytest

from robustvit.training.checkpoint import Checkpoints
from robustvit.types import TrainState

METRIC = "val/robust_accuracy"


def state_at(step):
    return TrainState(
        step=jnp.asarray(step), params={"w": jnp.full(3, float(step))}, batch_stats={},
        opt_state={"m": jnp.zeros(3)}, ema={}, key=jax.random.key(0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "kept", "best"),
    [
        ({1: 0.1, 2: 0.4, 3: 0.3, 4: 0.2}, [2, 4], 2),  # not the latest
        ({1: 0.1, 2: 0.4, 3: None, 4: None}, [2, 4], 2),  # some are not validated
        ({1: 0.4, 2: 0.3, 3: 0.2, 4: 0.4}, [4], 4),  # of equals the newest
        ({1: None, 2: None}, [2], 2),
    ],
)
def test_the_best_stays_and_is_found_again(tmp_path, scores, kept, best):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for step, score in scores.items():
            metrics = None if score is None else {METRIC: score}
            checkpoints.save(state_at(step), {}, metrics)
        checkpoints.wait()
        assert checkpoints.find("best") == best
    with Checkpoints(tmp_path, read_only=True) as again:
        assert again.find("best") == best and set(again.steps()) >= set(kept)
        assert again.find("latest") == max(scores)
        again.variables(best, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
