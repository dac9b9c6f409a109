"""The classes of ImageNet: its 1,000 WordNet ids, and the 100 of ImageNet-100.

    wnids()[0]  # "n01440764", label 0: labels follow the sorted ids
    wnids_of_100()[0]  # "n01484850"

ImageNet-100 is the subset of the Light Recipe's ablations: 100 of the sorted ids, drawn
at random once (Debenedetti et al. 2022, arXiv:2209.07399). Its labels, too, follow the
sorted ids.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from pathlib import Path

NUM_IMAGES = {"train": 1_281_167, "validation": 50_000}
SHOWN = 5  # classes that an error names


class WrongClassesError(ValueError):
    """A dataset has other classes than it should."""


@functools.cache
def wnids() -> tuple[str, ...]:
    """The WordNet ids of ILSVRC 2012, sorted."""
    return tuple(_lines("imagenet_wnids.txt"))


@functools.cache
def wnids_of_100() -> tuple[str, ...]:
    """Those of ImageNet-100, sorted."""
    return tuple(wnids()[int(line)] for line in _lines("imagenet100_indices.txt"))


def check_classes(
    found: Collection[str], wanted: Sequence[str], *, where: str, exact: bool = True
) -> None:
    """Raise WrongClassesError, naming the classes that are missing or too many.

    Args:
      where: what has the classes that were found, for the message.
      exact: whether other classes than the wanted ones are wrong.
    """
    faults = {"lacks": sorted(set(wanted) - set(found))}
    if exact:
        faults["has, beside the wanted ones,"] = sorted(set(found) - set(wanted))
    for fault, names in faults.items():
        if names:
            more = ", ..." if len(names) > SHOWN else ""
            raise WrongClassesError(
                f"{where} {fault} {len(names):,} of {len(wanted):,} classes: "
                f"{', '.join(names[:SHOWN])}{more}"
            )


def _lines(file: str) -> list[str]:
    return (Path(__file__).parent / file).read_text().split()
