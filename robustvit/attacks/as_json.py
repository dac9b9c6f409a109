"""Attacks as JSON and back, so that a report says what to run to get it again.

to_json(Square(queries=100))      # {"type": "Square", "queries": 100, "p": 0.8, ...}
from_json(to_json(attack)) == attack
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from robustvit import lookup
from robustvit.attacks.apgd import APGD
from robustvit.attacks.fab import FAB
from robustvit.attacks.label_attack import LabelAttack
from robustvit.attacks.pgd import PGD
from robustvit.attacks.square import Square

TYPES = {"APGD": APGD, "FAB": FAB, "LabelAttack": LabelAttack, "PGD": PGD,
         "Square": Square}  # fmt: skip


def to_json(attack: Any) -> Any:
    """The name of the attack's type and its numbers; attacks inside it likewise."""
    if not is_dataclass(attack):
        return attack
    values = {field.name: getattr(attack, field.name) for field in fields(attack)}
    kind = {"type": type(attack).__name__}
    return kind | {name: to_json(value) for name, value in values.items()}


def from_json(saved: Any) -> Any:
    """The attack that `to_json` wrote.

    Raises:
      ValueError: for an unknown type, or arguments that it does not take.
    """
    if not isinstance(saved, Mapping):
        return saved
    values = {name: from_json(v) for name, v in saved.items() if name != "type"}
    kind = saved.get("type")
    if not isinstance(kind, str):
        raise ValueError(f"an attack without a type cannot be rebuilt: {dict(saved)}")
    try:
        return lookup.build("type of attack", TYPES, kind, **values)
    except TypeError as error:
        raise ValueError(f"{kind} cannot be rebuilt from {values}: {error}") from error
