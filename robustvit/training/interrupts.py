"""Ctrl-C and SIGTERM, turned into a flag that loops look at between two steps."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class StopRequest:
    """Which signal asked us to stop, if one did."""

    signal: int | None = None

    def __bool__(self) -> bool:
        """True once somebody asked."""
        return self.signal is not None


class Interrupted(Exception):
    """The run stopped because of a signal, after saving a checkpoint.

    `exit_code` is 130 after Ctrl-C; after SIGTERM it is 42, which launchers take as
    "start me again".
    """

    def __init__(self, step: int, signal_number: int):
        super().__init__(f"stopped at step {step}; the same command continues")
        self.exit_code = 130 if signal_number == signal.SIGINT else 42


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within, the first SIGINT or SIGTERM sets the flag; a second one acts as usual.

    Outside the main thread nothing is caught: signals are its business there.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number, _):
        request.signal = number
        name = signal.Signals(number).name
        print(f"\n{name}: saving a checkpoint, then stopping", file=sys.stderr)
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        restore()
