"""What `benchmarks.train_step` measures: networks, methods, batches.

case = parse_case("n12_224_trades10", batch_size=None)
objective, model = case.objective(PGD(case.steps, case.step_size))
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from robustvit.attacks import light_step_size
from robustvit.models import create_model
from robustvit.objectives import adversarial, trades


class Network(NamedTuple):
    """A model, and the batch of a one-step attack that takes a second or two."""

    name: str
    timm_name: str
    image_size: int
    num_classes: int
    eps: float
    batch_size: int
    overrides: dict[str, Any]


def _network(size, stem, image_size, num_classes, eps, batch_size, **overrides):
    name = f"xcit_{size}_12_{stem}"
    timm_name = f"xcit_{size}_12_p16_224"  # smaller patches are its strides changed
    return Network(name, timm_name, image_size, num_classes, eps, batch_size, overrides)


NETWORKS = {
    "n12_224": _network("nano", "p16_224", 224, 1000, 4 / 255, 16),
    "s12_224": _network("small", "p16_224", 224, 1000, 4 / 255, 4),
    "n12_32": _network("nano", "p4_32", 32, 10, 8 / 255, 64),
    "s12_32": _network("small", "p4_32", 32, 10, 8 / 255, 16),
}
DEFAULT_CASES = "n12_224_fgsm,n12_224_trades10,s12_32_fgsm,s12_32_trades10"
MAX_STEPS_AT_FULL_BATCH = 3  # beyond, a quarter of the batch keeps a step below 10 s


@dataclass(frozen=True)
class Case:
    name: str
    network: Network
    trades: bool
    steps: int
    batch_size: int

    def objective(self, attack: Any) -> Any:
        model = create_model(
            self.network.name,
            num_classes=self.network.num_classes,
            **self.network.overrides,
        )
        return (trades if self.trades else adversarial)(model, attack), model

    @property
    def step_size(self) -> float:
        return light_step_size(self.network.eps, self.steps)


def parse_case(name: str, batch_size: int | None) -> Case:
    """Read e.g. `n12_224_trades10`."""
    found = re.fullmatch(rf"({'|'.join(NETWORKS)})_(fgsm|pgd(\d+)|trades(\d+))", name)
    if not found:
        raise SystemExit(
            f"unknown case {name!r}: write NETWORK_METHOD with a network of "
            f"{', '.join(NETWORKS)} and fgsm, pgd10 or trades10"
        )
    network = NETWORKS[found[1]]
    steps = int(found[3] or found[4] or 1)
    few = steps <= MAX_STEPS_AT_FULL_BATCH
    size = batch_size or (network.batch_size if few else network.batch_size // 4)
    return Case(name, network, found[2].startswith("trades"), steps, size)


def make_batch(case: Case) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    size, b = case.network.image_size, case.batch_size
    return {
        "image": rng.integers(0, 256, (b, size, size, 3), np.uint8),
        "label": rng.integers(0, case.network.num_classes, b).astype(np.int32),
        "index": np.arange(b, dtype=np.int32),
        "mask": np.ones(b, bool),
    }
