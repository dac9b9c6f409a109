"""The picture of a report: accuracies, and what the attacks did to some images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from robustvit.evaluation.intervals import wilson
from robustvit.threat import format_eps

if TYPE_CHECKING:
    from robustvit.evaluation.report import Report

GOOD, BAD, BLUE = "#1a7f37", "#b3261e", "#2a6fbb"
SIZE = 1.35  # inches per image
CHARTS = 2.6  # inches of height


def save_picture(report: Report, path: Path, rows: int) -> None:
    """Accuracy after each attack, and by eps where that is known; then examples.

    One example is image, perturbation (grey is zero), adversarial image. Shows what was
    broken first; two places are for what withstood, if anything did.
    """
    chosen = _choose(report.broken_by, rows)
    columns = 2 if len(chosen) > 3 else 1
    height = -(-len(chosen) // columns)
    grid = (SIZE + 0.25) * height + 0.3
    figure = Figure(figsize=(3 * columns * SIZE + 0.4, CHARTS + grid))
    figure.set_layout_engine("constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(CHARTS, grid))
    charts, examples = parts
    axes = charts.subplots(1, 2 if report.curve else 1, squeeze=False)[0]
    _draw_accuracies(report, axes[0])
    if report.curve:
        _draw_curve(report, axes[1])
    _draw_grid(report, chosen, examples.subplots(height, 3 * columns, squeeze=False))
    eps = format_eps(float(report.threat.eps))
    charts.suptitle(
        f"{report.clean_accuracy:.1%} clean, {report.robust_accuracy:.1%} robust: "
        f"{report.threat.norm} eps {eps}, {len(report.labels)} images",
        fontsize=9,
    )
    examples.suptitle(
        "image, perturbation, adversarial image; above an image, what it is taken for",
        fontsize=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _draw_accuracies(report, axis):
    """A bar for the clean images and for each attack, with 95 % intervals."""
    after = {"clean": report.clean_accuracy, **report.accuracy_after}
    shares = np.array(list(after.values()))
    bounds = np.array([wilson(share, len(report.labels)) for share in shares]).T
    spread = np.abs(bounds - shares)
    colours = ["0.6"] + [BLUE] * (len(shares) - 1)
    bars = axis.bar(list(after), shares, yerr=spread, color=colours, ecolor="0.3")
    axis.bar_label(bars, [f"{share:.1%}" for share in shares], fontsize=7, padding=2)
    axis.set_ylim(0, 1.12)
    _finish(axis, "accuracy left after each attack")


def _draw_curve(report, axis):
    """Robust accuracy by eps: a staircase would claim more than is known."""
    eps, share = np.array(list(report.curve)), np.array(list(report.curve.values()))
    scale = 255 if report.threat.norm == "linf" else 1
    low, high = np.array([wilson(s, len(report.labels)) for s in share]).T
    axis.fill_between(eps * scale, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axis.plot(eps * scale, share, ".-", color=BLUE, markersize=4, linewidth=1)
    axis.set_ylim(0, 1.12)
    axis.set_xlim(0, eps[-1] * scale)
    axis.set_xlabel("eps x 255" if scale > 1 else "eps", fontsize=7)
    _finish(axis, f"robust accuracy by {report.threat.norm} eps")


def _finish(axis, title):
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_grid(report, chosen, axes):
    for axis in axes.flat:
        axis.axis("off")
    for place, i in enumerate(chosen):
        row, column = place % len(axes), 3 * (place // len(axes))
        _draw_example(report, i, axes[row, column : column + 3])


def _choose(broken_by, rows):
    """Indices to show: broken ones, two robust ones, wrong ones for want of others."""
    broken = list(np.flatnonzero(broken_by > 0))
    robust = list(np.flatnonzero(broken_by == -1))
    chosen = broken[: rows - min(2, len(robust))]
    chosen += robust[: rows - len(chosen)]
    chosen += list(np.flatnonzero(broken_by == 0))[: rows - len(chosen)]
    return chosen


def _draw_example(report, i, axes):
    image, x_adv = report.images[i], report.x_adv[i]
    delta = x_adv - image
    size = np.abs(delta).max()
    shown = 0.5 + delta / (2 * size) if size > 0 else np.full_like(delta, 0.5)
    before, after = report.clean_predictions[i], report.adversarial_predictions[i]
    label = report.labels[i]
    fate = f"difference x {1 / (2 * size):.0f}" if size > 0 else "withstood"
    if report.broken_by[i] == 0:
        fate = "wrong already"
    titles = (
        (_name(report, before), GOOD if before == label else BAD),
        (fate, "0.35"),
        (_name(report, after), GOOD if after == label else BAD),
    )
    for axis, picture, (title, colour) in zip(
        axes, (image, shown, x_adv), titles, strict=True
    ):
        axis.imshow(np.clip(picture, 0, 1), interpolation="nearest")
        axis.set_title(title, fontsize=7.5, color=colour, pad=2)


def _name(report, label):
    if label < len(report.class_names):
        return report.class_names[label].replace("_", " ")[:18]
    return f"class {label}"
