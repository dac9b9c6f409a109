"""State dicts as tables of keys and shapes, short enough to be kept as JSON."""

import re
from pathlib import Path

PATH = Path(__file__).parents[1] / "golden" / "key_tables.json"
INDEX = re.compile(r"\.(\d+)\.")


def collapse(shapes):
    """{"blocks.0.a": (3,), "blocks.1.a": (3,)} to {"blocks.*.a": [[0, 1, [3]]]}."""
    table = {}
    for key, shape in shapes.items():
        found = INDEX.search(key)
        index = int(found[1]) if found else 0
        pattern = INDEX.sub(".*.", key, count=1)
        runs = table.setdefault(pattern, [])
        if runs and runs[-1][1] == index - 1 and runs[-1][2] == list(shape):
            runs[-1][1] = index
        else:
            runs.append([index, index, list(shape)])
    return table


def expand(table):
    """The inverse of `collapse`."""
    return {
        pattern.replace(".*.", f".{index}."): tuple(shape)
        for pattern, runs in table.items()
        for first, last, shape in runs
        for index in range(first, last + 1)
    }
