"""What runs came to: their reports and metrics, beside the published numbers.

    results = [read_result(Path("runs/s12"))]
    print(markdown(results))

Accuracies are in per cent. What was not measured is None, and "-" in tables.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustvit import published
from robustvit.attacks.autoattack import STANDARD
from robustvit.sweep import OUTPUT
from robustvit.threat import parse_eps
from robustvit.training.metrics import read_metrics
from robustvit.workdir import CONFIG

REPORT_KEYS = {"accuracy_after", "clean_accuracy", "num_examples", "threat", "step"}
MISSING = "-"


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
      name: of its folder.
      state: "finished", or how far it came.
      clean: of the report with the most examples, as all that follow.
      pgd: under the PGD that ends a training.
      apgd_ce, autoattack: under these attacks, at the eps of the training.
      images: examples of the smallest report that a number above is from.
      rows: the published ones of the same config.
    """

    name: str
    state: str
    clean: float | None = None
    pgd: float | None = None
    apgd_ce: float | None = None
    autoattack: float | None = None
    images: int | None = None
    rows: tuple[published.Published, ...] = ()

    @property
    def clean_difference(self) -> float | None:
        """From the first published row, in points."""
        return _minus(self.clean, self.rows[0].clean if self.rows else None)

    @property
    def robust_difference(self) -> float | None:
        """The same by the metric of that row."""
        if not self.rows:
            return None
        return _minus(getattr(self, self.rows[0].metric), self.rows[0].robust)


def read_result(workdir: Path, name: str | None = None) -> Result:
    """The result of the run in a folder.

    Raises:
      ValueError: if there is no run, or a report cannot be read.
    """
    if "://" in str(workdir) or ":/" in str(workdir):
        raise ValueError(f"{workdir} is remote: copy its *.json and *.jsonl here")
    name = name or workdir.name or str(workdir)
    if not (workdir / CONFIG).is_file():
        if (workdir / OUTPUT).is_file():  # a sweep's, and failed before it was claimed
            return Result(name, "not started")
        what = f"has no {CONFIG}" if workdir.is_dir() else "is no folder"
        raise ValueError(f"{workdir} {what}: wanted the --workdir of a training")
    config = _read_json(workdir / CONFIG)
    history = read_metrics(workdir)
    reports = _reports(workdir, config, _best_step(history, config))
    found = {}
    for report in reports:  # fewest examples first, so the most stay
        found |= dict.fromkeys(_accuracies(report), report)
    values = {key: 100 * _accuracies(report)[key] for key, report in found.items()}
    return Result(
        name=name,
        state=_state(workdir, history, config),
        images=min((r["num_examples"] for r in found.values()), default=None),
        rows=tuple(published.matching(config)),
        **values,
    )


def _reports(workdir, config, step):
    """Reports on the best checkpoint against the config's threat, smallest first."""
    norm, eps = config["threat"]["norm"], config["threat"]["eps"]
    found = []
    for path in sorted(workdir.glob("report*.json")):
        report = _read_json(path)
        if REPORT_KEYS - set(report):  # what else eval leaves beside reports
            continue
        threat = report["threat"]
        asked = norm == threat["norm"] and parse_eps(eps, norm) == parse_eps(
            threat["eps"], norm
        )
        # A report without attacks is on no threat.
        if (asked or not report["accuracy_after"]) and step in (None, report["step"]):
            found.append((report["num_examples"], path.stat().st_mtime, report))
    return [report for _, _, report in sorted(found, key=lambda entry: entry[:2])]


def _accuracies(report) -> dict[str, float]:
    """The columns that a report has something for."""
    after = report["accuracy_after"]
    found = {"clean": report["clean_accuracy"]}
    first = next(iter(after), "")
    if first.startswith("pgd-"):
        found["pgd"] = after[first]
    if first == "apgd-ce":  # later ones have only what it left
        found["apgd_ce"] = after[first]
    if set(STANDARD) <= set(after):
        found["autoattack"] = report["robust_accuracy"]
    return found


def _best_step(history, config):
    """The checkpoint that a report is on, unless another one was asked for."""
    metric = config["checkpoint"]["best_metric"]
    scores = [(r[metric], r["step"]) for r in history if metric in r]
    return max(scores)[1] if scores else None


def _state(workdir, history, config):
    if (workdir / "report.json").exists():
        return "finished"
    if not history:
        return "not trained"
    total = config["epochs"] + config["cooldown_epochs"]
    return f"epoch {history[-1].get('epoch', 0):.3g} of {total}"


def _read_json(path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _minus(ours, theirs):
    return None if ours is None or theirs is None else ours - theirs


def table(results: Iterable[Result]) -> list[dict[str, Any]]:
    """A line of plain values for each run."""
    lines = []
    for r in results:
        row = r.rows[0] if r.rows else None
        robust = {m: row.robust if row and row.metric == m else None
                  for m in published.METRICS}  # fmt: skip
        lines.append(
            {
                "run": r.name,
                "state": r.state,
                "images": r.images,
                "clean": r.clean,
                "pgd": r.pgd,
                "apgd_ce": r.apgd_ce,
                "autoattack": r.autoattack,
                "published": str(row) if row else None,
                "published_clean": row.clean if row else None,
                "published_apgd_ce": robust["apgd_ce"],
                "published_autoattack": robust["autoattack"],
                "clean_difference": r.clean_difference,
                "robust_difference": r.robust_difference,
            }
        )
    return lines


def to_csv(results: Iterable[Result]) -> str:
    """The table; what is missing is empty, numbers have two decimals."""
    lines = table(results)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(lines[0])
    for line in lines:
        writer.writerow([f"{v:.2f}" if isinstance(v, float) else v
                         for v in line.values()])  # fmt: skip
    return text.getvalue()


def markdown(results: Sequence[Result]) -> str:
    """The table for people: published numbers behind ours, differences in points."""
    heads = ["run", "state", "images", "clean", "PGD", "APGD-CE", "AutoAttack",
             "published", "its clean", "its robust", "difference"]  # fmt: skip
    lines = [heads, [":--"] * 2 + ["--:"] * 5 + [":--"] + ["--:"] * 3]
    lines += [_line(result) for result in results]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    notes = [_note(r) for r in results if len({_numbers(row) for row in r.rows}) > 1]
    legend = (
        "Accuracy in per cent; differences are clean / robust, in points. "
        f"{MISSING}: not measured or not published."
    )
    return "\n".join([*text, "", legend, *notes]) + "\n"


def _line(r):
    row = r.rows[0] if r.rows else None
    ours = [_shown(v) for v in (r.clean, r.pgd, r.apgd_ce, r.autoattack)]
    line = [r.name, r.state, MISSING if r.images is None else f"{r.images:,}", *ours]
    if row is None:
        return [*line, *[MISSING] * 4]
    robust = _shown(row.robust)
    if row.robust is not None:
        robust += f" {published.METRICS[row.metric]}"
    differences = (r.clean_difference, r.robust_difference)
    return [*line, str(row), _shown(row.clean), robust,
            " / ".join(_shown(d, "+.2f") for d in differences)]  # fmt: skip


def _note(result):
    others = (f"{row}, {_numbers(row)}" for row in result.rows)
    return f"{result.name} was published more than once: {'; '.join(others)}."


def _numbers(row):
    return f"{row.clean:.2f} / {_shown(row.robust)}"


def _shown(value, form=".2f"):
    return MISSING if value is None else f"{value:{form}}"
