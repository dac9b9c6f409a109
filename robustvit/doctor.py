"""`robustvit doctor`: is this machine ready for a run? One line per question."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from robustvit.data import pipeline, transforms
from robustvit.data.sources import open_source
from robustvit.parallel import data_mesh, put_batch, replicated
from robustvit.training.throughput import peak_flops

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets")
SECONDS = 3.0  # how long the input pipeline is timed


def examine(data_dir: str | None, dataset: str, split: str, workdir: Path) -> int:
    """Print what was found; 1 if anything is broken, else 0.

    Args:
      data_dir: where TFDS datasets lie, None for TFDS' own default.
      dataset, split: of which the input pipeline is timed.
      workdir: whose disk to look at.
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("versions", _versions),
        ("devices", _devices),
        ("matmul", _matmul),
        ("collectives", _collectives),
        ("compile cache", _cache),
        ("disk", lambda: _disk(workdir)),
        ("datasets", lambda: _datasets(data_dir)),
        ("input pipeline", lambda: _pipeline(dataset, split, data_dir)),
    ]
    broken = 0
    for name, check in checks:
        try:
            mark, text = "ok", check()
        except Exception as error:  # a broken part must not hide the others
            mark, text, broken = "!!", f"{type(error).__name__}: {error}", 1
        print(f"{mark}  {name:<14}  {text}", flush=True)
    return broken


def _versions():
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"python {sys.version.split()[0]}, {packages}"


def _devices():
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    memory = stats.get("bytes_limit")
    size = f", {memory / 2**30:.1f} GiB each" if memory else ""
    return (
        f"{jax.device_count()} x {device.device_kind} ({device.platform}){size}; "
        f"process {jax.process_index()} of {jax.process_count()}, "
        f"{os.cpu_count()} cores"
    )


def _matmul():
    peak = peak_flops(jax.devices()[0]) / 1e12
    return f"{peak:.3g} TFLOP/s per device, which the MFU counts as 100 %"


def _collectives():
    mesh = data_mesh()
    ranks = put_batch(np.arange(mesh.size, dtype=np.int32), mesh)
    total = jax.jit(jnp.sum, out_shardings=replicated(mesh))(ranks)
    wanted = mesh.size * (mesh.size - 1) // 2
    if int(total) != wanted:
        raise RuntimeError(f"the sum over devices is {int(total)}, not {wanted}")
    return f"a sum over {mesh.size} device{'s' * (mesh.size > 1)} is right"


def _cache():
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not folder:
        return "off; set JAX_COMPILATION_CACHE_DIR to compile once per machine"
    return f"{folder}, {sum(1 for _ in Path(folder).glob('*'))} files"


def _disk(workdir):
    there = next(
        p for p in (workdir.resolve(), *workdir.resolve().parents) if p.exists()
    )
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{there} cannot be written")
    return f"{shutil.disk_usage(there).free / 1e9:.0f} GB free at {there}"


def _datasets(data_dir):
    folder = Path(data_dir or "~/tensorflow_datasets").expanduser()
    return f"digits (built in); in {folder}: {', '.join(_prepared(folder)) or 'none'}"


def _prepared(folder):
    infos = sorted(folder.glob("*/*/dataset_info.json"))
    return [f"{p.parts[-3]}:{p.parts[-2]}" for p in infos]


def _pipeline(dataset, split, data_dir):
    source = open_source(dataset, split, data_dir=data_dir)
    size = 32 if len(source[0]["image"]) < 8192 else 224
    transform = transforms.imagenet_train(size)
    batch_size = min(64, len(source))
    batches = pipeline.train_batches(source, transform, batch_size=batch_size, seed=0)
    next(batches)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        images += len(next(batches)["label"])
    rate = images / (time.perf_counter() - start)
    batches.close()
    return (
        f"{rate:.0f} images/s: {dataset} {split}, random crops to {size}, "
        f"{os.cpu_count()} cores"
    )
