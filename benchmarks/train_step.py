"""The whole train step, against the same step written with PyTorch and timm.

    python -m benchmarks.train_step
    python -m benchmarks.train_step --cases s12_32_fgsm,s12_32_pgd3 --json out.json

A case is NETWORK_METHOD: n12_224, s12_224, n12_32 or s12_32 (XCiT and image size; 32
has patch 4) and `fgsm`, `pgdK` or `tradesK`.
Everything is float32, with AdamW, without stochastic depth, with BatchNorm in
evaluation mode during the attack. Both sides run in this process on the same cores,
in turns, and their times are divided pair by pair, so a busy machine disturbs the
images/s but hardly the ratio. torch and timm are optional.

The table's columns, where they need a word:

- compile: seconds from Python function to executable (trace + XLA); "of 1 step" is
  that of the k-step attack over that of the one-step attack.
- FLOPs / floor: XLA's count for the compiled step over `objective.forwards` times a
  forward. It includes elementwise work on both sides.
- memory: arguments + temporaries of the executable.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.cases import DEFAULT_CASES, Case, make_batch, parse_case
from robustvit.attacks import PGD
from robustvit.models import create_model
from robustvit.threat import ThreatModel
from robustvit.training.optim import adamw
from robustvit.training.schedules import constant, per_step
from robustvit.training.step import init_state, make_train_step
from robustvit.training.throughput import forward_flops


@dataclass(frozen=True)
class ChainedPGD(PGD):
    """One-step attacks in a row: every step is a piece of program of its own.

    Only for counting: the same work as PGD, but each step has a ball of its own.
    """

    def ascend(self, loss_fn, x, threat, keys, carry):
        for i in range(self.steps):
            one = PGD(1, self.step_size, random_start=i == 0)
            x, carry = one.ascend(loss_fn, x, threat, keys, carry)
        return x, carry


class Built(NamedTuple):
    """A compiled step."""

    executable: Any
    init: Callable[[jax.Array], Any]  # key -> state
    state: Any  # its shapes
    seconds: float  # from Python function to executable


def build(case: Case, attack: Any) -> Built:
    """Compile the step with `attack`, from cold caches."""
    objective, model = case.objective(attack)
    tx = adamw(per_step(constant(1e-4), 1, 1), weight_decay=0.05)

    def init(key):
        return init_state(model, tx, key, case.network.image_size)

    state = jax.eval_shape(init, jax.random.key(0))
    threat = ThreatModel("linf", case.network.eps)
    # What an earlier case traced must not be a present to this one.
    jax.clear_caches()
    start = time.perf_counter()
    step = jax.jit(make_train_step(objective, tx), donate_argnames="state")
    executable = step.lower(state, make_batch(case), threat).compile()
    return Built(executable, init, state, time.perf_counter() - start)


def flops(built: Built) -> float:
    return float((built.executable.cost_analysis() or {}).get("flops", 0.0))


def count(case: Case, built: Built) -> dict[str, float]:
    """FLOPs against the floor, compile time against one step, memory."""
    objective, model = case.objective(PGD(case.steps, case.step_size))
    first = built if case.steps == 1 else build(case, PGD(1, case.step_size))
    total = flops(first)
    if case.steps > 1:
        # cost_analysis counts the body of a loop once, whatever its trip count, so
        # the cost of another attack step is what a second one adds when the two are
        # written one after the other; steps are alike, so the count is linear in k.
        second = build(case, ChainedPGD(2, case.step_size))
        total += (case.steps - 1) * (flops(second) - total)
    variables = {
        "params": built.state.params,
        "batch_stats": built.state.batch_stats,
    }
    forward = forward_flops(model, variables, case.network.image_size)
    memory = built.executable.memory_analysis()
    used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    return {
        "compile_seconds": built.seconds,
        "compile_of_one_step": built.seconds / first.seconds,
        "gflop_per_image": total / case.batch_size / 1e9,
        "flops_over_floor": total / case.batch_size / (objective.forwards * forward),
        "memory_mb": used / 1e6,
    }


def runner(case: Case, built: Built) -> Callable[[], None]:
    """Run the compiled step once, to the end; the state goes round."""
    state = jax.jit(built.init)(jax.random.key(0))
    batch, threat = make_batch(case), ThreatModel("linf", case.network.eps)

    def run():
        nonlocal state
        state, metrics = built.executable(state, batch, threat)
        jax.block_until_ready((state, metrics))

    return run


def torch_runner(case: Case, torch_compile: bool) -> tuple[Callable[[], float], str]:
    """The same step in torch, in the faster of two memory layouts, and its name."""
    from benchmarks import torch_reference

    batch, network = make_batch(case), case.network
    strides = create_model(network.name).strides
    steps = {}
    for layout in torch_reference.LAYOUTS:
        steps[layout] = torch_reference.make_step(
            torch_reference.build(network.timm_name, network.num_classes, strides),
            batch["image"],
            batch["label"],
            steps=case.steps,
            eps=network.eps,
            step_size=case.step_size,
            trades=case.trades,
            layout=layout,
            torch_compile=torch_compile,
        )
        steps[layout]()
    tries = {name: min(seconds_of(step) for _ in "ab") for name, step in steps.items()}
    best = min(tries, key=tries.__getitem__)
    return steps[best], best


def seconds_of(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    print(f"{case.name}: compiling", file=sys.stderr, flush=True)
    built = build(case, PGD(case.steps, case.step_size))
    row = {"case": case.name, "batch_size": case.batch_size, **count(case, built)}
    ours = runner(case, built)
    ours()
    theirs = None
    if options.torch:
        theirs, row["torch_layout"] = torch_runner(case, options.torch_compile)
    pairs = []
    for i in range(options.repeats):
        print(f"{case.name}: {i + 1}/{options.repeats}", file=sys.stderr, flush=True)
        pairs.append((seconds_of(ours), seconds_of(theirs) if theirs else 0.0))
    mine, other = zip(*pairs, strict=True)
    row["images_per_second"] = case.batch_size / statistics.median(mine)
    row["seconds"] = mine
    if theirs:
        ratios = sorted(b / a for a, b in pairs)
        row["torch_images_per_second"] = case.batch_size / statistics.median(other)
        row["torch_seconds"] = other
        row["ratio"] = statistics.median(ratios)
        row["ratio_range"] = (ratios[0], ratios[-1])
    return row


COLUMNS = {
    "case": "{case}",
    "batch": "{batch_size}",
    "images/s": "{images_per_second:.2f}",
    "torch images/s": "{torch_images_per_second:.2f}",
    "ratio (range)": "{ratio:.2f} ({ratio_range[0]:.2f}-{ratio_range[1]:.2f})",
    "compile s": "{compile_seconds:.1f}",
    "of 1 step": "{compile_of_one_step:.2f}",
    "GFLOP/image": "{gflop_per_image:.2f}",
    "FLOPs / floor": "{flops_over_floor:.3f}",
    "memory MB": "{memory_mb:.0f}",
}
TORCH_COLUMNS = ("torch images/s", "ratio (range)")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown; without torch its columns are left out."""
    columns = {
        title: cell
        for title, cell in COLUMNS.items()
        if all("ratio" in row for row in rows) or title not in TORCH_COLUMNS
    }
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[cell.format(**row) for cell in columns.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(options: argparse.Namespace) -> str:
    """Where this was measured, in one line."""
    cpu, info = platform.machine(), Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.*)", info.read_text())):
        cpu = found[1]
    versions = f"jax {jax.__version__}"
    if options.torch:
        from benchmarks.torch_reference import timm, torch

        versions += f", torch {torch.__version__}, timm {timm.__version__}"
    return f"{cpu}, {options.threads} of {os.cpu_count()} cores; {versions}"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.train_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--cases", default=DEFAULT_CASES, help=f"default: {DEFAULT_CASES}")
    add("--repeats", type=int, default=7, help="timed pairs of steps (default: 7)")
    add("--batch-size", type=int, help="of every case (default: about 1-10 s a step)")
    add("--threads", type=int, help="cores for both sides (default: all we may use)")
    add("--no-torch", dest="torch", action="store_false", help="time only robustvit")
    add("--torch-compile", action="store_true", help="torch.compile the timm model")
    add("--json", type=Path, metavar="FILE", help="write the rows there too")
    return parser.parse_args(argv)


def set_threads(threads: int | None) -> int:
    """Confine this process to so many cores; gives how many there are."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        if threads:
            raise SystemExit("--threads needs Linux; leave it out to use all cores")
        return os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0))
    if threads:
        # XLA sizes its thread pool by the affinity when the first array is made.
        os.sched_setaffinity(0, cores[:threads])
    return len(os.sched_getaffinity(0))


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print the table, and give its rows."""
    options = parse_arguments(argv)
    cases = [parse_case(name, options.batch_size) for name in options.cases.split(",")]
    options.threads = set_threads(options.threads)
    options.torch = options.torch and all(map(find_spec, ("torch", "timm")))
    if options.torch:
        from benchmarks.torch_reference import torch

        torch.set_num_threads(options.threads)
    # A compilation cache on disk would make the compile times those of reading it.
    jax.config.update("jax_enable_compilation_cache", False)
    rows = [measure(case, options) for case in cases]
    command = shlex.join(sys.argv[1:] if argv is None else argv)
    print(f"{machine(options)}\n`python -m benchmarks.train_step {command}`\n")
    print(table(rows))
    if options.json:
        report = {"machine": machine(options), "command": command, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2))
    return rows


if __name__ == "__main__":
    main()
