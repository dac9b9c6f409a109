"""Running the points of a sweep: one process after the other, none stops the rest.

    outcomes = run(tasks, say=print)

A point that was finished with the same config is skipped; one that was interrupted goes
on where it was, as `robustvit train` does.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustvit.runs import to_plain
from robustvit.sweep import OUTPUT, Task
from robustvit.workdir import differences, write_json

DONE = "sweep_point.json"  # the config that a point was finished with, as written
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED = {signal.SIGINT: 130}  # exit codes as those of `robustvit train`; else 42

Commands = Callable[[Task], list[list[str]]]


@dataclass(frozen=True)
class Outcome:
    """What became of a point: `error` is its last word, empty if it was finished."""

    task: Task
    error: str = ""
    skipped: bool = False


class SweepStopped(Exception):
    """A signal came; the point that was running has stopped as well."""

    def __init__(self, number: int):
        super().__init__(f"{signal.Signals(number).name}: the same command continues")
        self.exit_code = STOPPED.get(signal.Signals(number), 42)


def commands_here(task: Task) -> list[list[str]]:
    """The point's commands, in this Python."""
    return [[sys.executable, "-m", "robustvit", *c] for c in task.commands()]


def run(
    tasks: Sequence[Task],
    *,
    say: Callable[[str], None],
    commands: Commands = commands_here,
) -> list[Outcome]:
    """Run every point; their output goes to `output.txt` in their folders.

    Args:
      tasks: in this order.
      say: told what happens.
      commands: of a point; the first that fails ends it.

    Raises:
      SweepStopped: after Ctrl-C, SIGTERM or SIGHUP, which the point got as well.
    """
    outcomes = []
    for number, task in enumerate(tasks, 1):
        head = f"[{number}/{len(tasks)}] {task.name}:"
        if is_finished(task):
            say(f"{head} was finished before")
            outcomes.append(Outcome(task, skipped=True))
            continue
        say(f"{head} started, see {task.workdir / OUTPUT}")
        before = time.monotonic()
        error = _run_point(task, commands(task))
        spent = f"{time.monotonic() - before:.0f} s"
        say(f"{head} " + (f"FAILED after {spent}: {error}" if error else f"{spent}"))
        outcomes.append(Outcome(task, error))
    return outcomes


def is_finished(task: Task) -> bool:
    """Whether the folder has this point's results; to be done again, delete it."""
    done = task.workdir / DONE
    wanted = ["report.json", *([f"report-{task.attack}-*.json"] if task.attack else [])]
    if not (done.exists() and all(any(task.workdir.glob(name)) for name in wanted)):
        return False
    before = json.loads(done.read_text())
    return not list(differences(before, to_plain(task.config())))


def _run_point(task, commands):
    """Its error, or "" if it ended well."""
    task.workdir.mkdir(parents=True, exist_ok=True)
    for command in commands:
        error = _run_command(command, task.workdir / OUTPUT)
        if error:
            return error
    write_json(task.workdir / DONE, to_plain(task.config()))
    return ""


def _run_command(command, path):
    with path.open("ab") as output, _signals() as signals:
        start = output.tell()
        # In a session of its own, so that Ctrl-C reaches it once: from here.
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        signals.pass_to(process)
        code = process.wait()
    if signals.caught:
        raise SweepStopped(signals.caught[0])
    return _last_word(path, start, code) if code else ""


@dataclass
class _Signals:
    """Those that came, for a process that is told of them and then saves and ends."""

    caught: list[int] = field(default_factory=list)
    process: subprocess.Popen | None = None

    def __call__(self, number: int, _: Any) -> None:
        self.caught.append(number)
        if self.process is not None:
            self._send(number)

    def pass_to(self, process: subprocess.Popen) -> None:
        self.process = process
        for number in self.caught:  # while it was being started
            self._send(number)

    def _send(self, number):
        # Training does not know SIGHUP. A process that has ended gets nothing.
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Within, signals are caught; outside the main thread they are its business."""
    signals = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, signals) for number in SIGNALS}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_word(path: Path, start: int, code: int) -> str:
    """The error of a command, out of what it printed from `start` on."""
    with path.open("rb") as output:
        output.seek(start)
        text = output.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("robustvit")] or lines
    word = said[-1] if said else "it said nothing"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; last words: {word}"
    return word
