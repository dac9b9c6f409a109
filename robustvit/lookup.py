"""Names to things: tables that answer a misspelt name with the nearest one."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

SHOWN = 20  # names of a table in an error


def build(
    what: str, table: Mapping[str, Callable], name: str, *args: Any, **keywords: Any
) -> Any:
    """Call `table[name]`.

    Raises:
      ValueError: for a name that is not in the table, or an argument that its entry
        does not take; `what` says in the message what kind of thing it is.
    """
    known = sorted(arguments(what, table, name))
    for key in keywords:
        if key not in known:
            raise ValueError(
                f"{what} {name!r} has no argument {key!r}: {nearest(key, known)}"
            )
    return table[name](*args, **keywords)


def arguments(what: str, table: Mapping[str, Callable], name: str) -> frozenset[str]:
    """Names of what `table[name]` takes.

    Raises:
      ValueError: for a name that is not in the table.
    """
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}: {nearest(name, table)}")
    return frozenset(inspect.signature(table[name]).parameters)


def check(what: str, value: str, known: Iterable[str]) -> None:
    """Raise ValueError if `value` is none of `known`."""
    known = list(known)
    if value not in known:
        raise ValueError(f"{what}={value!r} is not one of {', '.join(known)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """What may have been meant; what there is, if nothing comes close."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return f"there are {', '.join(known[:SHOWN])}{more}"
