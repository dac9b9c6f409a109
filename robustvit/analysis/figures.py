"""Figures of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

CLEAN, ROBUST, GREY = "#1f5fbf", "#c2410c", "0.45"


def save_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy, loss, and the schedules of a run against the epoch.

    Args:
      history: the records of `metrics.jsonl`. Alarms of the watchdog are vertical
        lines, solid where training was rolled back.
      path: of the PNG.
    """
    figure = Figure(figsize=(9.5, 3.1))
    accuracy, loss, schedule = figure.subplots(1, 3)
    for kind, colour in (("clean", CLEAN), ("robust", ROBUST)):
        _line(accuracy, history, f"val/{kind}_accuracy", f"{kind}, held out", colour)
        _line(accuracy, history, f"train/{kind}_accuracy", f"{kind}, training", colour,
              alpha=0.35)  # fmt: skip
    accuracy.set(title="accuracy", ylim=(0, 1))
    accuracy.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")

    _line(loss, history, "train/loss", "training", ROBUST, alpha=0.6)
    _line(loss, history, "val/loss", "clean, held out", CLEAN)
    loss.set(title="loss", ylim=(0, None))
    for axis in (accuracy, loss):
        if axis.lines:
            axis.legend(fontsize=7, frameon=False)

    eps = [(r["epoch"], r["train/eps"] * 255) for r in history if "train/eps" in r]
    if eps:
        schedule.step(*zip(*eps, strict=True), where="pre", color=ROBUST, lw=1.4)
    schedule.set_ylabel("eps (1/255)", color=ROBUST)
    schedule.set(title="schedules", ylim=(0, None))
    rate = schedule.twinx()
    _line(rate, history, "train/lr", "learning rate", GREY)
    rate.set_ylabel("learning rate", color=GREY)
    rate.set_ylim(0, None)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))

    alarms = [r for r in history if "watchdog/alarm" in r]
    rollbacks = {r["epoch"] for r in alarms if "watchdog/rollback" in r}
    for axis in (accuracy, loss, schedule):
        for epoch in {r["epoch"] for r in alarms}:  # dashed: training went on
            axis.axvline(epoch, color="#b91c1c", lw=0.9, alpha=0.7,
                         ls="-" if epoch in rollbacks else "--")  # fmt: skip
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def _line(axis, history, name, label, colour, alpha=1.0):
    points = [(r["epoch"], r[name]) for r in history if name in r]
    if points:
        axis.plot(*zip(*points, strict=True), label=label, color=colour, alpha=alpha,
                  lw=1.4)  # fmt: skip
