"""The watchdog: what a reading says, when it alarms, what a rollback does, resuming."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robustvit.analysis.figures import save_curves
from robustvit.attacks import PGD, fgsm
from robustvit.objectives import adversarial
from robustvit.threat import ThreatModel
from robustvit.training import watchdog as dogs
from robustvit.training.checkpoint import Checkpoints
from robustvit.training.guard import FILE, Guard
from robustvit.training.loop import fit
from robustvit.training.metrics import CollapsedError, MetricsWriter, read_metrics
from robustvit.training.settings import Settings, TrainData
from robustvit.training.step import init_state
from robustvit.training.watchdog import Watchdog, make_reading
from robustvit.types import Outputs
from tests.tiny import TinyNet

THREAT = ThreatModel("linf", 0.1)
MASKED_BY = {"gap": 0.6, "gap_error": 0.01, "leak": 0.0, "leak_error": 0.0}
QUIET = {**MASKED_BY, "gap": 0.1}


def watchdog(**options):
    return Watchdog(
        fgsm(0.1, random_start=False),
        lambda attack: adversarial(TinyNet(), attack),
        **options,
    )


class Bent(nn.Module):
    """Class 1 where the mean pixel m is low, but for a little step up at grey.

    There the slope has the other sign, in a region so narrow that random starts fall
    beside it: one step from grey itself goes the wrong way, a longer climb does not.
    """

    step: float

    @nn.compact
    def __call__(self, images, *, train=False):
        m = images.mean((1, 2, 3)) - 127 / 255
        slope = self.param("slope", lambda _: jnp.array(30.0))
        logit = -slope * m + self.step * jnp.tanh(m / 5e-4) - 0.05
        logits = jnp.stack([-logit, logit], -1)
        return Outputs(logits=logits, features=images, hidden=(images,))


def read(model, images, labels):
    state = init_state(model, optax.sgd(0.1), jax.random.key(0), 4)
    n = len(labels)
    batch = {
        "image": images,
        "label": labels,
        "index": np.arange(n, dtype=np.int32),
        "mask": np.ones(n, bool),
    }
    reading = jax.jit(make_reading(model, watchdog()))
    return {k: float(v) for k, v in reading(state, batch, THREAT).items()}


GREY = np.full((64, 4, 4, 3), 127, np.uint8)
ONES = np.ones(64, np.int32)


def test_a_straight_network_is_quiet_and_a_bent_one_masks_and_leaks():
    """Grey is just wrong; the misled step makes it right, which is leaking."""
    plain = read(Bent(0.0), GREY, ONES)
    assert abs(plain["gap"]) < 1e-5 and plain["leak"] == 0.0
    assert dogs.judge(plain, 0.2) == {"masked": 0.0, "leaking": 0.0}
    bent = read(Bent(0.1), GREY, ONES)
    assert bent["gap"] > 0.9 and bent["leak"] == 1.0
    assert bent["robust_accuracy"] <= 0.25
    assert dogs.judge(bent, 0.2) == {"masked": 1.0, "leaking": 1.0}


def test_errors_of_a_reading_are_the_textbooks():
    short, long = jnp.array([1.0, 2.0, 0.5, 1.5]), jnp.array([2.0, 2.0, 1.0, 3.0])
    found = dogs._gap(short, long)
    assert found["gap"] == pytest.approx(3 / 8)
    residual = np.array(long - short) - 3 / 8 * np.array(long)
    error = np.sqrt(np.mean(residual**2)) / (2.0 * 2.0)
    assert found["gap_error"] == pytest.approx(error)
    clean = jnp.array([1.0, 1.0, 0.0, 0.0, 0.0])
    after = jnp.array([1.0, 0.0, 1.0, 1.0, 1.0])
    found = dogs._leak(clean, after)  # 3 gained, 1 lost: McNemar's z is 2 / sqrt(4)
    assert found["leak"] == pytest.approx(2 / 5)
    assert found["leak"] / found["leak_error"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (QUIET, (0, 0)),
        (MASKED_BY, (1, 0)),
        ({**MASKED_BY, "gap_error": 0.25}, (0, 0)),  # 0.6 +- 0.5 may well be 0.2
        ({**QUIET, "leak": 0.1, "leak_error": 0.04}, (0, 1)),
        ({**QUIET, "leak": 0.1, "leak_error": 0.06}, (0, 0)),
        ({**QUIET, "leak": -0.5, "leak_error": 0.06}, (0, 0)),
    ],
)
def test_only_what_is_sure_counts(values, expected):
    assert tuple(dogs.judge(values, 0.2).values()) == expected


def history(*masked):
    return [
        {"step": 10 * i, "watchdog/masked": m, "watchdog/leaking": 0.0}
        for i, m in enumerate(masked, 1)
    ]


def test_two_readings_in_a_row_make_an_alarm():
    cases = {(): None, (1,): None, (1, 0): None, (1, 0, 1): None, (0, 1, 1): "masked"}
    for masked, cause in cases.items():
        assert dogs.alarm([{"step": 5, "train/loss": 1.0}, *history(*masked)]) == cause
    assert dogs.last_quiet(history(0, 1, 0, 1)) == 30
    assert dogs.last_quiet(history(1, 1)) is None


def test_collapse_is_half_the_accuracy_of_before():
    cases = {
        (): False, (0.1, 0.1): False, (0.4, 0.4, 0.1): False, (0.4, 0.2, 0.2): False,
        (0.4, 0.4, 0.2, 0.2): True, (0.4, 0.4, 0.3, 0.2): False, (0.5, 0.1, 0.0): True,
    }  # fmt: skip
    for right, expected in cases.items():
        records = [dict(r, **{"watchdog/robust_accuracy": a}) for r, a in
                   zip(history(*right), right, strict=True)]  # fmt: skip
        assert dogs.fallen(records) == expected, right


@pytest.mark.parametrize(
    ("attack_steps", "steps", "forwards", "every", "cost"),
    [  # readings: 3 + 21 + 1 passes on an eighth; a step of FGSM training is 5
        (1, 10, 5, 50, 0.0125),  # 27: TRADES
        (1, 10, 5, 32, 25 / 8 / 5 / 32),
        (2, 10, 7, 50, 27 / 8 / 7 / 50),
        (10, 20, 27, 50, (21 + 41 + 1) / 8 / 27 / 50),
    ],
)
def test_cost_is_what_the_passes_add_up_to(attack_steps, steps, forwards, every, cost):
    attack = PGD(attack_steps, 0.01)
    model = TinyNet()
    dog = Watchdog(attack, lambda a: adversarial(model, a), steps=steps, every=every)
    assert dog.cost(forwards) == pytest.approx(cost) and cost < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "watchdog.every=0 must be at least 1"),
        ({"steps": 1}, "watchdog.steps=1 must be more than the 1 of the attack"),
        ({"gap": 1.0}, "watchdog.gap=1.0 must be between 0 and 1"),
        ({"shrink": 0.0}, "watchdog.shrink=0.0 must be between 0 and 1"),
        ({"action": "stop"}, "watchdog.action='stop' is not one of warn, rollback"),
    ],
)
def test_what_cannot_be_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        watchdog(**options)


class Fake:
    """A run's files with readings made up."""

    def __init__(self, folder, **options):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.dog = watchdog(every=10, action="rollback", **options)
        self.guard = Guard(self.dog, TinyNet(), folder)
        self.checkpoints = Checkpoints(folder, keep=1)
        self.guard.finish(self.checkpoints)
        self.writer = MetricsWriter(folder, self.checkpoints.latest_step or 0)
        self.said = []

    def save(self, step):
        model = TinyNet()
        state = init_state(model, optax.sgd(0.1), jax.random.key(0), 4)
        self.guard.protect(self.checkpoints, self.writer.history)
        self.checkpoints.save(state.replace(step=jnp.array(step)), {}, None)
        self.checkpoints.wait()

    def read(self, step, values):
        full = {**values, "robust_accuracy": 0.5 if values is QUIET else 0.1}
        self.guard._pending = [(step, full)]
        return self.guard.went_back(
            self.writer, self.checkpoints, 100, self.said.append
        )

    def close(self):
        self.writer._file.close()
        self.checkpoints.__exit__(None, None, None)


def test_rollback_is_to_a_checkpoint_that_a_quiet_reading_came_after(tmp_path):
    run = Fake(tmp_path)
    run.save(8)
    assert not run.read(10, QUIET)
    run.save(15)  # quiet before, but nobody looked after
    run.save(18)
    assert run.checkpoints.steps() == [8, 18]  # one is kept, and the sound one
    run.writer.write(18, {"epoch": 0.18, "train/loss": 1.0})
    assert not run.read(20, MASKED_BY)
    assert run.read(30, MASKED_BY)
    assert run.checkpoints.steps() == [8] and run.guard.factor == 0.5
    kept = read_metrics(tmp_path)
    assert (
        kept[-1]["step"] == 8 and "from step 30 to 8" in kept[-1]["watchdog/rollback"]
    )
    assert not any("train/loss" in r for r in kept)
    assert len(run.said) == 2
    assert "gradient masking: PGD-1" in run.said[0] and "misses 60%" in run.said[0]
    assert "a random start" in run.said[0]
    run.close()


def test_rollbacks_survive_a_stop_and_end(tmp_path):
    """Twice to one checkpoint, then to the start; then it is an error."""
    run = Fake(tmp_path, max_rollbacks=3)
    run.save(8)
    run.read(10, QUIET)
    # A note is at the step that was gone back to, as is whatever lies before it.
    for wanted in (8, 8, 0):
        run.read(20, MASKED_BY)
        assert run.read(30, MASKED_BY)
        assert (run.checkpoints.latest_step or 0) == wanted
        run.close()
        run = Fake(tmp_path, max_rollbacks=3)
        run.read(10, QUIET)
    assert run.guard.factor == 0.125
    past = json.loads((tmp_path / FILE).read_text())["rollbacks"]
    assert [event["to"] for event in past] == [8, 8, 0]
    run.read(20, MASKED_BY)
    with pytest.raises(CollapsedError, match="rolled back 3 times before; step 0"):
        run.read(30, MASKED_BY)
    run.close()


def test_a_rollback_that_was_cut_off_is_completed(tmp_path):
    run = Fake(tmp_path)
    run.save(8)
    run.read(10, QUIET)
    run.save(18)
    event = {"from": 30, "to": 8, "why": ""}
    run.guard._remember([event], unfinished=True)  # and then it was killed
    run.close()
    run = Fake(tmp_path)
    assert run.checkpoints.steps() == [8] and run.guard.factor == 0.5
    assert not json.loads((tmp_path / FILE).read_text())["unfinished"]
    run.close()


def test_warnings_come_once_an_episode(tmp_path):
    run = Fake(tmp_path)
    run.guard.watchdog = watchdog(every=10)
    for step, values in enumerate([MASKED_BY] * 4 + [QUIET] + [MASKED_BY] * 3, 1):
        assert not run.read(10 * step, values)
    assert len(run.said) == 2
    notes = [r for r in read_metrics(tmp_path) if "watchdog/alarm" in r]
    assert [r["step"] for r in notes] == [20, 70]
    assert "watchdog.action=rollback" in notes[0]["watchdog/alarm"]
    run.close()


def test_alarms_are_lines_in_the_curves(tmp_path):
    calm = [{"step": s, "epoch": s / 10, "train/loss": 1.0} for s in (1, 20)]
    note = {"step": 10, "epoch": 1.0, "watchdog/alarm": "gradient masking"}
    save_curves(calm, tmp_path / "calm.png")
    save_curves([*calm, note], tmp_path / "alarm.png")
    calm, alarm = (tmp_path / f"{n}.png" for n in ("calm", "alarm"))
    assert calm.read_bytes() != alarm.read_bytes()


def toy_data():
    """Noise in five classes, learnable by nobody; any step is a batch."""

    def batch(step):
        rng = np.random.default_rng(step)
        return {
            "image": rng.integers(0, 256, (8, 8, 8, 3), np.uint8),
            "label": rng.integers(0, 5, 8, np.int32),
            "index": rng.integers(0, 99, 8, np.int32),
            "mask": np.ones(8, bool),
        }

    def train(step):
        while True:
            yield batch(step)
            step += 1

    return TrainData(
        train=train,
        val=lambda: iter([batch(999)]),
        steps_per_epoch=4,
        batch_size=8,
        image_size=8,
    )


def toy_fit(workdir, *, epochs, dog=None, **settings):
    model = TinyNet()
    attack = fgsm(0.05, random_start=False)
    return fit(
        model,
        adversarial(model, attack),
        optax.sgd(0.05),
        data=toy_data(),
        validate_with=attack,
        threat=THREAT,
        threat_at=lambda _: THREAT,
        lr_at=lambda _: 0.05,
        settings=Settings(epochs=epochs, log_every=2, save_every=2, **settings),
        workdir=workdir,
        key=jax.random.key(0),
        watchdog=dog,
    )


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_training_goes_back_with_a_smaller_step_and_goes_on(tmp_path, monkeypatch):
    """Alarms made up at steps 6 and 8 of a run whose checkpoint 4 is sound.

    It ends as a run does that takes the shrunk step from 4 on, stopped or not; and its
    metrics are one sequence of steps.
    """
    model, sizes = TinyNet(), []

    def rebuild(attack):
        sizes.append(attack.step_size)
        return adversarial(model, attack)

    dog = Watchdog(fgsm(0.05, random_start=False), rebuild, every=2, action="rollback")

    def judge(values, gap):
        first = not (tmp_path / FILE).exists()
        count.append(1)
        return {"masked": float(first and len(count) in (3, 4)), "leaking": 0.0}

    count = []
    monkeypatch.setattr("robustvit.training.guard.fallen", lambda history: True)
    monkeypatch.setattr("robustvit.training.guard.judge", judge)
    fitted = toy_fit(tmp_path, epochs=3, dog=dog)
    assert sizes == [0.05, 0.025] and int(fitted.state.step) == 12
    steps = [r["step"] for r in fitted.history if "train/loss" in r]
    assert steps == [1, 2, 4, 6, 8, 10, 12]
    assert len([r for r in fitted.history if "watchdog/rollback" in r]) == 1
    assert fitted.history[-1]["step"] == 12 and fitted.best_step >= 4

    # Going on after the end, and from the middle, changes nothing.
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.drop_after(10)
    again = toy_fit(tmp_path, epochs=3, dog=dog)
    assert sizes == [0.05, 0.025, 0.025]
    same(again.state.params, fitted.state.params)


def test_patience_ends_a_run_and_keeps_it_ended(tmp_path, capsys):
    """A metric that cannot rise: nothing is learned at a rate of 0."""
    fitted = toy_fit(tmp_path, epochs=9, patience=2, best_metric="val/clean_accuracy")
    ended = int(fitted.state.step)
    text = "val/clean_accuracy has not risen above"
    scores = [r["val/clean_accuracy"] for r in fitted.history if "val/loss" in r]
    best = scores.index(max(scores))
    assert ended == 4 * len(scores) and len(scores) - 1 - best == 2
    assert text in capsys.readouterr().err
    again = toy_fit(tmp_path, epochs=9, patience=2, best_metric="val/clean_accuracy")
    assert int(again.state.step) == ended and text in capsys.readouterr().err
    same(again.state.params, fitted.state.params)
