"""`robustvit report RUN...`: runs side by side, and beside the published numbers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustvit.results import Result


def add_report(commands: Any) -> None:
    """Add the command and its flags."""
    report = commands.add_parser(
        "report",
        help="tabulate runs, beside the published numbers of the same recipe",
        description="Clean accuracy and accuracy under PGD, APGD-CE and AutoAttack, "
        "from the reports that train and eval left in the folders; where a run's "
        "config is one of a paper's, its numbers and the differences. What was not "
        "measured is shown as -.",
        epilog="`robustvit eval --workdir RUN --attack autoattack` measures.",
    )
    add = report.add_argument
    add("workdirs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    add("--markdown", type=Path, metavar="FILE", help="write the table there as well")
    add("--csv", type=Path, metavar="FILE", help="the same, two decimals")
    add("--png", type=Path, metavar="FILE", help="a picture of the table")
    report.set_defaults(run=_report)


def _report(args, _):
    from robustvit.results import markdown, read_result

    names = _names(args.workdirs)
    results = [
        read_result(path, name) for path, name in zip(args.workdirs, names, strict=True)
    ]
    print(markdown(results), end="")
    write_results(results, args.markdown, args.csv, args.png)


def write_results(
    results: Sequence[Result],
    text: Path | None,
    table: Path | None,
    picture: Path | None,
) -> None:
    """Write what is not None: Markdown, CSV, PNG."""
    from robustvit import results as formats
    from robustvit.analysis.comparison import save_comparison

    for path in filter(None, (text, table, picture)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if text:
        text.write_text(formats.markdown(results))
    if table:
        table.write_text(formats.to_csv(results))
    if picture:
        save_comparison(formats.table(results), picture)
    wrote = [str(path) for path in (text, table, picture) if path]
    if wrote:
        print(f"wrote {', '.join(wrote)}", file=sys.stderr)


def _names(paths):
    """The folders' names, with as much before them as tells them apart."""
    paths = [path.resolve() for path in paths]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]
