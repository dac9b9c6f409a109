"""Sweeps: files and their mistakes, points that fail, signals, and one real sweep."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from robustvit import sweep_runs
from robustvit.cli import main
from robustvit.sweep import Point, Sweep, Task, grid, tasks
from tests.small_run import QUICKSTART, REPO

TABLE4 = REPO / "configs" / "sweeps" / "table4_weight_decay.py"


def write(folder, body):
    path = folder / "sweep.py"
    path.write_text(
        f"from robustvit.sweep import Point, Sweep\nQ = {QUICKSTART!r}\n{body}"
    )
    return path


MISTAKES = {
    "print(1)": "has no function get_sweep",
    "returns {}": "returned a dict, wanted a robustvit.sweep.Sweep",
    "returns Sweep({})": "at least one point",
    "returns Sweep({'a/b': Point(Q)})": "point 'a/b': wanted letters",
    "returns Sweep({'..': Point(Q)})": "point '..'",
    "returns Sweep({'a': Point('no.py')})": "point a: there is no config file",
    "returns Sweep({'a': Point(Q + ':x')})": "variant 'x' is unknown",
    "returns Sweep({'a': Point(Q, {'optim.rl': 1})})": "there is no key 'rl'",
    "returns Sweep({'a': Point(Q, {'epochs': 'many'})})": "point a",
}


@pytest.mark.parametrize("body", MISTAKES)
def test_mistakes_in_a_file_are_told_before_any_work(tmp_path, capsys, body):
    path = write(tmp_path, body.replace("returns", "def get_sweep(): return"))
    assert main(["sweep", str(path), "--workdir", str(tmp_path / "runs")]) == 2
    assert MISTAKES[body] in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_no_such_sweep_names_those_that_there_are(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(REPO)
    assert main(["sweep", "configs/sweeps/table9.py", "--workdir", str(tmp_path)]) == 2
    assert "table4_weight_decay.py" in capsys.readouterr().err


def test_grid_has_every_combination():
    rates = {"lr1": {"optim.lr": 1.0}, "lr2": {"optim.lr": 2.0}}
    points = grid("c.py", rates, {"": {"seed": 1}, "ema": {"optim.ema_decay": 0.9}})
    assert points == {
        "lr1": Point("c.py", {"optim.lr": 1.0, "seed": 1}),
        "lr1-ema": Point("c.py", {"optim.lr": 1.0, "optim.ema_decay": 0.9}),
        "lr2": Point("c.py", {"optim.lr": 2.0, "seed": 1}),
        "lr2-ema": Point("c.py", {"optim.lr": 2.0, "optim.ema_decay": 0.9}),
    }
    with pytest.raises(ValueError, match="at least one point"):
        Sweep({})


def test_print_commands_runs_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(REPO)
    sweep = ["sweep", str(TABLE4.relative_to(REPO)), "--workdir", f"{tmp_path}/a b"]
    flags = ["--print-commands", "--eval", "apgd-ce", "--config.seed=7"]
    assert main([*sweep, *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14 and not list(tmp_path.iterdir())
    assert lines[5] == (
        "robustvit train --config configs/imagenet100_xcit_adv.py:adversarial "
        f"--workdir '{tmp_path}/a b/wd0.5' --config.optim.args.weight_decay=0.5 "
        f"--config.seed=7 && robustvit eval --workdir '{tmp_path}/a b/wd0.5' "
        "--attack apgd-ce"
    )


def python(code):
    """Stands for a training."""
    return lambda task: [[sys.executable, "-c", code.format(folder=task.workdir)]]


GOOD = (
    "open('{folder}/report.json', 'w').close(); open('{folder}/runs', 'a').write('x')"
)


@pytest.fixture
def points(tmp_path):
    return [Task(name, QUICKSTART, (), tmp_path / name) for name in "abc"]


def test_a_point_that_fails_or_crashes_does_not_stop_the_rest(points):
    codes = {
        "a": "print('robustvit train: no luck', flush=True); print('bye'); exit(2)",
        "b": "import os; os.kill(os.getpid(), 9)",
        "c": GOOD,
    }
    said = []
    outcomes = sweep_runs.run(
        points, say=said.append, commands=lambda t: python(codes[t.name])(t)
    )
    assert [o.error for o in outcomes] == [
        "robustvit train: no luck",
        "killed by SIGKILL; last words: it said nothing",
        "",
    ]
    assert "FAILED" in said[1] and "[3/3] c" in said[-1]

    # Again: what failed is tried again, what was finished is not.
    again = sweep_runs.run(points, say=said.append, commands=python(GOOD))
    assert [(o.error, o.skipped) for o in again] == [("", False)] * 2 + [("", True)]
    assert (points[2].workdir / "runs").read_text() == "x"
    log = (points[0].workdir / sweep_runs.OUTPUT).read_text()
    assert log.startswith("robustvit train: no luck\nbye\n")


@pytest.mark.parametrize(
    ("change", "finished"),
    [
        ({}, True),
        ({"flags": ("--config.log.every=3",)}, True),  # the result is the same
        ({"flags": ("--config.optim.lr=3.0",)}, False),
        ({"attack": "apgd-ce"}, False),
    ],
)
def test_finished_is_what_has_this_config_and_its_reports(points, change, finished):
    sweep_runs.run(points[:1], say=print, commands=python(GOOD))
    task = Task(**{**vars(points[0]), **change})
    assert sweep_runs.is_finished(task) == finished
    (task.workdir / "report.json").unlink()
    assert not sweep_runs.is_finished(task)


def test_the_second_command_waits_for_the_first_to_succeed(points):
    fail = python("exit(1)")(points[0]) + python(GOOD)(points[0])
    assert sweep_runs.run(points[:1], say=print, commands=lambda _: fail)[0].error
    assert not (points[0].workdir / "runs").exists()


@pytest.mark.parametrize(
    ("number", "received", "code"),
    [(signal.SIGINT, "2", 130), (signal.SIGTERM, "15", 42), (signal.SIGHUP, "15", 42)],
)
def test_a_signal_reaches_the_point_and_ends_the_sweep(points, number, received, code):
    saving = (
        "import signal, time\n"
        "def save(n, _):\n"
        "    open('{folder}/saved', 'w').write(str(int(n))); exit(130)\n"
        "signal.signal(2, save); signal.signal(15, save)\n"
        "open('{folder}/ready', 'w').close(); time.sleep(60)"
    )

    def send():
        while not (points[0].workdir / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    with pytest.raises(sweep_runs.SweepStopped, match="same command") as stopped:
        sweep_runs.run(points, say=print, commands=python(saving))
    assert stopped.value.exit_code == code
    assert (points[0].workdir / "saved").read_text() == received
    assert not points[1].workdir.exists()
    assert not sweep_runs.is_finished(points[0])


TINY = """
from ml_collections import ConfigDict
from configs import common

def get_config():
    c = common.default()
    fields = {"layers": (1,), "widths": (8,), "stem": "small", "bn_group": 0}
    args = {"num_classes": 0, "mean": (), "std": (), "dtype": "float32", **fields}
    c.model = ConfigDict({"name": "resnet18", "args": args})
    c.epochs, c.cooldown_epochs, c.report.steps, c.data.batch_size = 1, 0, 1, 8
    c.data.train_split, c.data.val_split = "train[:8]", "train[8:16]"
    c.data.test_split, c.data.transform.name = "test[:8]", "digits"
    return c
"""  # compiles in half the time of the smallest XCiT


def test_a_real_sweep_with_a_planted_failure(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(REPO)  # where the point finds `configs`
    (tmp_path / "tiny.py").write_text(TINY)
    path = tmp_path / "sweep.py"
    path.write_text(
        "from robustvit.sweep import Sweep, grid\n"
        "optim = {n: {'optim.name': n} for n in ('lion', 'adamw')}\n"
        "def get_sweep(): return Sweep(grid('tiny.py', optim))\n"
    )
    folder = tmp_path / "runs"
    arguments = ["sweep", str(path), "--workdir", str(folder), "--config.seed=7"]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "1 of 2 points failed" in said.err
    assert "  lion: robustvit train: unknown optimizer 'lion'" in said.err
    assert json.loads((folder / "adamw/config.json").read_text())["seed"] == 7
    lines = {line.split(" ")[1]: line for line in said.out.splitlines() if "|" in line}
    assert "finished" in lines["adamw"] and "not started" in lines["lion"]
    assert main(["report", str(folder / "lion"), str(folder / "adamw")]) == 0
    assert "not started" in capsys.readouterr().out
    for name in ("table.md", "table.csv", "table.png"):
        assert (folder / name).stat().st_size > 100
    done = tasks(path, folder, arguments[-1:])
    assert [sweep_runs.is_finished(task) for task in done] == [False, True]
