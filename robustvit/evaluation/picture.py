"""The picture of a report: what the attack did to some of the images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from robustvit.threat import format_eps

if TYPE_CHECKING:
    from robustvit.evaluation.report import Report

GOOD, BAD = "#1a7f37", "#b3261e"
SIZE = 1.35  # inches per image


def save_grid(report: Report, path: Path, rows: int) -> None:
    """One example a row: image, perturbation (grey is zero), adversarial image.

    Shows what was broken first; two rows are for what withstood, if anything did.
    """
    chosen = _choose(report.broken_by, rows)
    columns = 2 if len(chosen) > 3 else 1
    height = -(-len(chosen) // columns)
    figure = Figure(figsize=(3 * columns * SIZE + 0.4, (SIZE + 0.25) * height + 0.7))
    axes = figure.subplots(height, 3 * columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for place, i in enumerate(chosen):
        row, column = place % height, 3 * (place // height)
        _draw_example(report, i, axes[row, column : column + 3])
    eps = format_eps(float(report.threat.eps))
    figure.suptitle(
        f"{report.clean_accuracy:.1%} clean, {report.robust_accuracy:.1%} robust\n"
        f"{report.threat.norm} eps {eps}, {', '.join(report.attacks) or 'no attack'}, "
        f"{len(report.labels)} images\n"
        "image, perturbation, adversarial image; above an image, what it is taken for",
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0, 1, 1), h_pad=0.6, w_pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


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
