"""What is known of each model without building it: size, cost, where weights are.

    facts()["xcit_small_12_p16_224"].params

The numbers are in facts.json, which `tests/golden/make_facts.py` writes; tests hold
them against the models.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple


class Facts(NamedTuple):
    """About a model by its name.

    Attributes:
      params: parameters, head included, running statistics not.
      gmacs: 1e9 multiply-adds of the forward pass of one image of `image_size`.
      image_size: side of the images it was published for.
      weights: where published weights are; empty if there are none.
    """

    params: int
    gmacs: float
    image_size: int
    weights: str


@functools.cache
def facts() -> dict[str, Facts]:
    """The table, by model name."""
    table = json.loads((Path(__file__).parent / "facts.json").read_text())
    return {name: Facts(**row) for name, row in table.items()}
