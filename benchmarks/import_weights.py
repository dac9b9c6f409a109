"""Time and memory of importing a weight file of a large model.

    python -m benchmarks.import_weights [--model vit_large_patch16_224]

Writes random weights as .pth and as .safetensors, and imports each in a process of its
own, whose resident memory is sampled every 2 ms. Memory is given in sizes of the file,
above what the process had before; mapped pages of the file count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np

import robustvit as rv
from robustvit.interop.names import entries
from robustvit.interop.torch_writer import write_torch_file
from robustvit.models import create_model

PAGE = 4096


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def measure(name: str, path: Path) -> None:
    """Import once, and print what it took."""
    model = create_model(name)
    jax.numpy.zeros(1).block_until_ready()  # starts the backend
    before, samples, done = resident(), [0], threading.Event()

    def watch():
        while not done.wait(0.002):
            samples.append(resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    jax.block_until_ready(rv.load_torch(model, path))
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    size = path.stat().st_size
    print(
        f"{name} {path.suffix}: {size / 1e9:.2f} GB in {seconds:.1f} s, "
        f"peak memory {max(samples) / size:.2f} times the file",
        flush=True,
    )


def write(name: str, folder: Path) -> list[Path]:
    """The same random weights in both formats."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    tensors = {
        entry.key: rng.standard_normal(entry.torch_shape, np.float32)
        for entry in entries(create_model(name))
    }
    paths = [folder / "weights.pth", folder / "weights.safetensors"]
    write_torch_file(paths[0], tensors)
    save_file(tensors, paths[1])
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_large_patch16_224")
    parser.add_argument("--file", type=Path, help="import this one, here")
    args = parser.parse_args()
    if args.file:
        measure(args.model, args.file)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for path in write(args.model, Path(folder)):
                command = [sys.executable, "-m", "benchmarks.import_weights"]
                subprocess.run(
                    [*command, "--model", args.model, "--file", str(path)], check=True
                )
