"""`robustvit sweep FILE`: trains the points of a sweep, and tabulates them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

OVERRIDES = (
    "--config.KEY=VALUE is set in all points, e.g. --config.data.dir=/data/tfds "
    "--config.epochs=30. Exit code: 0 all points are finished, 1 some failed, 130 or "
    "42 stopped by a signal."
)


def add_sweep(commands: Any) -> None:
    """Add the command and its flags."""
    sweep = commands.add_parser(
        "sweep",
        help="train every point of a grid, one after the other, and tabulate them",
        description="Trains each point in a folder of its own below --workdir. A point "
        "that fails does not stop the rest. The same command goes on: finished points "
        "are skipped, interrupted ones continue. Ends with table.md, table.csv and "
        "table.png, as of `robustvit report`.",
        epilog=OVERRIDES,
    )
    add = sweep.add_argument
    # `config` is the name that lets overrides through.
    add("config", type=Path, metavar="FILE", help="configs/sweeps/*.py, or your own")
    add("--workdir", required=True, type=Path, help="folder for the points' folders")
    add(
        "--print-commands",
        action="store_true",
        help="run nothing: print a command for each point, for a cluster's queue",
    )
    add(
        "--eval",
        choices=("apgd-ce", "autoattack"),
        default="",
        help="also attack each trained model with this, on the run's test split (the "
        "published tables 1 to 4 are by APGD-CE with 5 restarts; here it has 1)",
    )
    sweep.set_defaults(run=_sweep)


def _sweep(args, overrides):
    from robustvit.sweep import tasks

    found = tasks(args.config, args.workdir, overrides, attack=args.eval)
    if args.print_commands:
        print("\n".join(task.shell() for task in found))
        return 0
    return _run(found, args.workdir)


def _run(tasks, workdir):
    from robustvit import sweep_runs

    try:
        outcomes = sweep_runs.run(tasks, say=_say)
    except sweep_runs.SweepStopped as stop:
        _say(str(stop))
        return stop.exit_code
    _tabulate(tasks, workdir)
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        _say(f"{len(failed)} of {len(tasks)} points failed:")
        for outcome in failed:
            _say(f"  {outcome.task.name}: {outcome.error}")
    return 1 if failed else 0


def _tabulate(tasks, workdir):
    from robustvit.cli_report import write_results
    from robustvit.results import markdown, read_result

    results = [read_result(task.workdir, task.name) for task in tasks]
    print(markdown(results), end="", flush=True)
    names = ("table.md", "table.csv", "table.png")
    write_results(results, *(workdir / name for name in names))


def _say(text):
    print(text, file=sys.stderr, flush=True)
