"""Figure of several runs: accuracies, and the published ones beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

CLEAN, ROBUST, GREY = "#1f5fbf", "#c2410c", "0.45"
# The strongest attack that was run is the one to show.
ROBUST_COLUMNS = {
    "autoattack": ("s", "AutoAttack"), "apgd_ce": ("D", "APGD-CE"), "pgd": ("v", "PGD"),
}  # fmt: skip
LINE = 0.34  # inches
PUBLISHED = ", published"


def save_comparison(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """A line for each run: filled marks are ours, hollow ones are published.

    Args:
      lines: of `robustvit.results.table`.
      path: of the PNG.
    """
    figure = Figure(figsize=(8.5, 1.5 + LINE * max(len(lines), 2)))
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    shown: dict[str, Line2D] = {}
    for y, line in enumerate(lines):
        marks = _marks(line)
        for x, colour, marker, label, ours in marks:
            face = colour if ours else "white"
            (handle,) = axis.plot(
                x, y + (0.0 if ours else 0.24), marker, color=colour, ms=6,
                mfc=face, mew=1.3, zorder=3,
            )  # fmt: skip
            handle.set_clip_on(False)
            shown.setdefault(label, handle)
        ends = [x for x, *_, ours in marks if ours]
        if ends:
            axis.plot([min(ends), max(ends)], [y, y], color="0.8", lw=2, zorder=1)
        else:
            axis.text(1, y, line["state"], va="center", fontsize=8, color=GREY)
    axis.set_yticks(range(len(lines)), [line["run"] for line in lines], fontsize=9)
    axis.set(
        xlim=(0, 100), ylim=(len(lines) - 0.4, -0.6), xlabel="accuracy in per cent"
    )
    axis.grid(axis="x", alpha=0.25)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    _legend(figure, shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _legend(figure, shown):
    """Ours above, published below."""
    order = ["clean", *(label for _, label in ROBUST_COLUMNS.values())]
    labels = [x for name in order for x in (name, name + PUBLISHED) if x in shown]
    if labels:
        figure.legend(
            [shown[label] for label in labels], labels, loc="outside upper center",
            ncols=-(-len(labels) // 2), fontsize=8, frameon=False,
        )  # fmt: skip


def _marks(line):
    """(x, colour, marker, label, ours) of what a line has numbers for."""
    marks = []
    for prefix, ours, suffix in (("", True, ""), ("published_", False, PUBLISHED)):
        if line.get(f"{prefix}clean") is not None:
            marks.append((line[f"{prefix}clean"], CLEAN, "o", f"clean{suffix}", ours))
        for column, (marker, label) in ROBUST_COLUMNS.items():
            if line.get(prefix + column) is not None:
                x = line[prefix + column]
                marks.append((x, ROBUST, marker, label + suffix, ours))
                break
    return marks
