"""Published results, each with the config that they belong to.

    row = matching(config)[0]
    row.clean, row.robust          # in per cent; robust by `row.metric`

The numbers are in published.json, in groups that share a table and conditions. A run
matches a row if its config fulfils the conditions of both, which are on the model, the
data, the threat, the attack, augmentation, epochs and weight decay. Seeds, batch sizes
and learning rates, which go with the machine, are not looked at.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustvit.threat import parse_eps
from robustvit.workdir import flatten

METRICS = {"apgd_ce": "APGD-CE", "autoattack": "AutoAttack"}
ANY = "*"  # a condition that everything but nothing fulfils
# Fields of a model that do not make another one of it.
SAME_MODEL = {
    "num_classes", "drop_path", "mean", "std", "bn_group", "remat", "dtype",
    "layer_scale", "image_size",
}  # fmt: skip
UNLESS_SAID = {"data.mix.name": ""}


@dataclass(frozen=True)
class Published:
    """One line of a table.

    Attributes:
      table: where it stands, like "table 4".
      source: "thesis" (arXiv:2209.07399), "repository" (its code), or another paper.
      name: of the line.
      recipe: config file and variant, or a sweep's file, "#" and a point; relative to
        configs/. Empty for what no config here trains.
      clean: accuracy in per cent.
      robust: accuracy in per cent by `metric`; None where none is published.
      metric: "apgd_ce" (5 restarts) or "autoattack".
      conditions: values of a config; None for what no config here trains.
    """

    table: str
    source: str
    name: str
    recipe: str
    clean: float
    robust: float | None
    metric: str
    conditions: Mapping[str, Any] | None = field(repr=False)

    def __str__(self) -> str:
        """For example "table 4: weight decay 0.5"."""
        source = "" if self.source == "thesis" else f" ({self.source})"
        return f"{self.table}{source}: {self.name}"


@functools.cache
def rows() -> tuple[Published, ...]:
    """Every row, in the order of the file."""
    groups = json.loads((Path(__file__).parent / "published.json").read_text())
    return tuple(
        Published(
            table=group["table"],
            source=group["source"],
            name=row["name"],
            recipe=row["recipe"],
            clean=row["clean"],
            robust=row["robust"],
            metric=group["metric"],
            conditions=(
                None if row["when"] is None else {**group["when"], **row["when"]}
            ),
        )
        for group in groups
        for row in group["rows"]
    )


def matching(config: Mapping[str, Any]) -> list[Published]:
    """The rows of a run's (nested) config; some were measured for two tables."""
    if not set(config["model"]["args"]) <= SAME_MODEL:
        return []
    flat = flatten(config)
    return [row for row in rows() if _matches(row, flat)]


def _matches(row, flat):
    if row.conditions is None:
        return False
    wanted = UNLESS_SAID | dict(row.conditions)
    return all(_fulfils(flat, key, value) for key, value in wanted.items())


def _fulfils(flat, key, wanted):
    value = flat.get(key)
    if wanted == ANY:
        return bool(value)
    if value is None:
        return False
    if key == "threat.eps":
        return parse_eps(value, flat["threat.norm"]) == parse_eps(wanted, "linf")
    if key == "data.name":  # the version of a TFDS dataset is no condition
        return value.partition(":")[0] == wanted
    return value == wanted
