"""What an evaluation ran on, as far as it decides how numbers are rounded.

devices()       # "8 x NVIDIA H200", "1 x cpu (AMD EPYC 7B13, 2 cores)"
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import jax

CPU_FACTS = Path("/proc/cpuinfo")  # Linux; elsewhere `platform` knows


def devices() -> str:
    """How many devices of which kind; of CPUs, which jax all calls "cpu", the model."""
    kind = jax.devices()[0].device_kind
    if kind == "cpu":
        # XLA's matrix products are split by the number of threads.
        kind = f"cpu ({_processor()}, {os.cpu_count()} cores)"
    return f"{jax.device_count()} x {kind}"


def _processor():
    if CPU_FACTS.exists():
        for line in CPU_FACTS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
