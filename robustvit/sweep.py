"""Sweeps: named points, each a config and what is changed in it.

A sweep's file has a function `get_sweep()`:

    def get_sweep():
        decays = {f"wd{wd}": {"optim.args.weight_decay": wd} for wd in (0.05, 0.5)}
        return Sweep(grid("../imagenet100_xcit_adv.py", decays))

`robustvit sweep FILE --workdir DIR` trains the points, each in a folder of its own.
"""

from __future__ import annotations

import itertools
import os
import re
import runpy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustvit.config_files import load_config

OUTPUT = "output.txt"  # what a point printed, in its folder
NAME = re.compile(r"[\w.+=-]+")  # that a folder can have anywhere


@dataclass(frozen=True)
class Point:
    """One training of a sweep.

    Args:
      config: config file and variant, the path relative to the sweep's file.
      overrides: values of the config's keys, like {"optim.lr": 1e-3}.
    """

    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """Points by name; the name is the folder's.

    Raises:
      ValueError: if there are none, or a name would not do for a folder.
    """

    points: Mapping[str, Point]

    def __post_init__(self) -> None:
        """Checks the names."""
        if not self.points:
            raise ValueError("a sweep needs at least one point")
        for name in self.points:
            if not NAME.fullmatch(name) or set(name) == {"."}:
                raise ValueError(
                    f"point {name!r}: wanted letters, digits and . _ + = - in a name, "
                    "which is that of the point's folder"
                )


def grid(config: str, *axes: Mapping[str, Mapping[str, Any]]) -> dict[str, Point]:
    """Every combination of one entry of each axis, their names joined by "-".

    Args:
      config: of all points.
      axes: name -> overrides; a name "" adds nothing to the point's.
    """
    points = {}
    for choice in itertools.product(*(axis.items() for axis in axes)):
        name = "-".join(word for word, _ in choice if word)
        overrides = {k: v for _, changes in choice for k, v in changes.items()}
        points[name] = Point(config, overrides)
    return points


@dataclass(frozen=True)
class Task:
    """A point that is ready to run.

    Attributes:
      name: of the point.
      spec: the config file, from here, and its variant.
      flags: the point's overrides and then the command line's, which win.
      workdir: folder of its run.
      attack: of `robustvit eval`, to be run on the trained model; "" for none.
    """

    name: str
    spec: str
    flags: tuple[str, ...]
    workdir: Path
    attack: str = ""

    def config(self) -> Any:
        """As written; the dataset need not be here."""
        return load_config(self.spec, self.flags)

    def commands(self) -> list[list[str]]:
        """Arguments of the commands that it takes, in order."""
        workdir = str(self.workdir)
        train = ["train", "--config", self.spec, "--workdir", workdir, *self.flags]
        measure = ["eval", "--workdir", workdir, "--attack", self.attack]
        return [train, measure] if self.attack else [train]

    def shell(self) -> str:
        """A line for a shell."""
        return " && ".join(shlex.join(["robustvit", *c]) for c in self.commands())


def load_sweep(path: Path) -> Sweep:
    """Run a sweep's file.

    Raises:
      ValueError: if there is no such file, or it gives no `Sweep`.
    """
    if not path.is_file():
        there = sorted(str(p) for p in Path("configs/sweeps").glob("*.py"))
        known = f"; there are {', '.join(there)}" if there else ""
        raise ValueError(f"there is no sweep file {path}{known}")
    make = runpy.run_path(str(path)).get("get_sweep")
    if make is None:
        raise ValueError(f"{path} has no function get_sweep(): is it a config?")
    sweep = make()
    if not isinstance(sweep, Sweep):
        raise ValueError(
            f"get_sweep() of {path} returned a {type(sweep).__name__}, wanted a "
            "robustvit.sweep.Sweep"
        )
    return sweep


def tasks(
    path: Path, workdir: Path, overrides: Sequence[str] = (), *, attack: str = ""
) -> list[Task]:
    """The points of the sweep at `path`, their configs checked.

    Args:
      path: of the sweep's file.
      workdir: folder of all of them.
      overrides: for all of them, like "--config.epochs=2".
      attack: to evaluate each with, besides the report that training ends in.

    Raises:
      ValueError: naming the point whose config cannot be read.
    """
    found = []
    for name, point in load_sweep(path).points.items():
        file, colon, variant = point.config.partition(":")
        spec = os.path.normpath(path.parent / file) + colon + variant
        flags = (*(_flag(*item) for item in point.overrides.items()), *overrides)
        task = Task(name, spec, flags, workdir / name, attack)
        try:
            task.config()
        except ValueError as error:
            raise ValueError(f"{path}, point {name}: {error}") from None
        found.append(task)
    return found


def _flag(key, value):
    return f"--config.{key}={value}"
