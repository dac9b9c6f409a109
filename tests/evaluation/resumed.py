"""One evaluation, as a program that a test can kill: `python -m ... STATE_DIR`."""

import os
import sys
import time
from pathlib import Path

import numpy as np

import robustvit as rv
from robustvit.evaluation import ledger, slots
from tests.attacks import reference


def run(state_dir):
    """The same question every time."""
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(30, 5, 5, 3)).astype(np.float32)
    forward = reference.mlp(6, images.shape[1:])
    labels = np.asarray(forward(images).argmax(-1))
    attacks = {
        "apgd-ce": rv.APGD(steps=10, restarts=2),
        "apgd-t": rv.APGD("targeted_dlr", steps=10),
        "fab-t": rv.FAB(steps=10),
        "square": rv.Square(queries=40),
    }
    return rv.evaluate(
        forward, images, labels, rv.ThreatModel("l2", 0.2), attacks, batch_size=8,
        progress=False, state_dir=Path(state_dir),
    )  # fmt: skip


if __name__ == "__main__":
    ledger.SAVE_SECONDS = 0.0
    if os.environ.get("SLOW_STEPS"):
        step = slots._step
        slots._step = lambda *args: (time.sleep(0.01), step(*args))[1]
    run(sys.argv[1])
