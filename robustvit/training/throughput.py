"""How fast a run is and how fast the machine could be: images/s, MFU, time left.

MFU is the FLOPs that the method cannot do without (forward passes of its floor times
the FLOPs of a forward) over what the devices could do at their peak in that time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from robustvit.types import Device, PyTree, TrainState

# Dense bfloat16 peaks in FLOP/s per jax device. TPUs: cloud.google.com/tpu/docs (v2 and
# v3 devices are cores, later ones chips); GPUs: NVIDIA's datasheets without sparsity.
PEAK_FLOPS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device: Device) -> float:
    """The device's bf16 peak in FLOP/s; of an unknown one, a float32 matmul measured.

    On CPU every virtual device shares the same cores, so the measurement is divided
    by their number.
    """
    kind = device.device_kind
    known = [name for name in PEAK_FLOPS if kind.startswith(name)]
    if known:
        return PEAK_FLOPS[max(known, key=len)]
    n = 2048
    x = jax.device_put(jnp.ones((n, n), jnp.float32), device)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    shared = jax.local_device_count() if device.platform == "cpu" else 1
    return 2 * n**3 / min(seconds) / shared


def forward_flops(model: Any, variables: PyTree, image_size: int) -> float:
    """FLOPs of one image through the model, from XLA's cost analysis; no compiling."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    forward = jax.jit(lambda v, x: model.apply(v, x).logits)
    cost = forward.lower(variables, images).cost_analysis()
    return float((cost or {}).get("flops", 0.0))


def is_idle(pending: Sequence[tuple[int, PyTree]]) -> bool:
    """Whether the devices have done all the steps whose metrics are pending.

    Asked when a batch has come: if they have not, they did not wait for it. If they
    have, they waited for a part of the time that it took; all of it is then counted.
    """
    return not pending or all(x.is_ready() for x in jax.tree.leaves(pending[-1][1]))


class Throughput:
    """Counts images and seconds between two readings.

    Args:
      flops_per_image: of a whole train step, at its floor.
      peak: FLOP/s of all devices together.
    """

    def __init__(self, flops_per_image: float, peak: float):
        self._flops_per_image = flops_per_image
        self._peak = peak
        self.restart()

    @classmethod
    def of(
        cls, model: Any, state: TrainState, size: int, forwards: int, devices: int
    ) -> Throughput:
        """That of a training whose step has so many forward passes."""
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        forward = forward_flops(model, variables, size)
        peak = peak_flops(jax.local_devices()[0]) * devices
        return cls(forwards * forward, peak)

    def restart(self) -> None:
        """Begin a new interval now."""
        self._start = time.perf_counter()
        self._images = 0
        self._waited = 0.0

    def add(self, images: int, waited: float) -> None:
        """Count a step; `waited` are the seconds that devices stood still for it."""
        self._images += images
        self._waited += waited

    def read(self) -> dict[str, float]:
        """Rates since the last reading, and begin a new interval."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        rate = self._images / seconds
        reading = {
            "images_per_second": rate,
            "mfu": rate * self._flops_per_image / self._peak,
            "data_wait": self._waited / seconds,
        }
        self.restart()
        return reading
