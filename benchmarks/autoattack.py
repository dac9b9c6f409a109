"""AutoAttack here and in torch: the same weights, images, budget and threads.

    python -m benchmarks.autoattack mlp --data-dir DIR                # trains it here
    python -m benchmarks.autoattack cnn --weights weights_cnn_relu.npz --data-dir DIR
    python -m benchmarks.autoattack --compile xcit_small_12_p16_224

The torch side is torchattacks' APGD, APGDT, FAB and Square with the constants of
AutoAttack's standard version (100 steps, nine targets, 5,000 queries), each on what is
still standing, in batches of `--torch-batch-size`. The JAX side is one call of
`rv.evaluate`; its time includes compilation. Every thread is a device of its own here,
because XLA's CPU programs for small batches use one thread.

`--compile` instead takes the time that the programs of the whole suite take to compile.
"""

from __future__ import annotations

import argparse
import collections
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

STEPS, TARGETS, QUERIES = 100, 9, 5000


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("network", nargs="?", choices=("cnn", "resnet20", "mlp"))
    add("--weights", type=Path, help="of cnn (.npz) or resnet20 (.th)")
    add("--data-dir", help="where the prepared CIFAR-10 lies")
    add("--examples", type=int, default=1000)
    add("--eps", help="default: one that about a third of the examples withstand")
    add("--threads", type=int, default=os.cpu_count())
    add("--devices", type=int, help="of the JAX side; default: one a thread")
    add("--batch-size", type=int, default=128, help="slots of the JAX side")
    add(
        "--torch-batch-size", type=int, default=250, help="default: 250, the original's"
    )
    add("--compile", metavar="MODEL", help="a model of the zoo, at its own image size")
    args = parser.parse_args()
    os.environ["JAX_NUM_CPU_DEVICES"] = str(args.devices or args.threads)
    if args.compile:
        compile_time(args.compile)
    elif args.network:
        compare(args)
    else:
        parser.error("wanted a network, or --compile MODEL")


def compare(args: argparse.Namespace) -> None:
    """Both sides on the first test images."""
    import torch

    import robustvit as rv
    from benchmarks.attacked_networks import NETWORKS

    torch.set_num_threads(args.threads)
    train = cifar10(args.data_dir, "train[:20000]") if args.network == "mlp" else None
    images, labels = cifar10(args.data_dir, f"test[:{args.examples}]")
    network = NETWORKS[args.network](args.weights, train)
    threat = rv.ThreatModel("linf", args.eps or network.eps)
    theirs = run_torch(
        network, images, labels, float(threat.eps), args.torch_batch_size
    )
    report = rv.evaluate(
        network.jax, images, labels, threat, rv.autoattack("standard"),
        batch_size=args.batch_size,
    )  # fmt: skip
    show(args, report, theirs)


def run_torch(network: Any, images: Any, labels: Any, eps: float, size: int) -> Any:
    """By attack: seconds, passes, and what is robust afterwards."""
    import torch

    model = counting(network.torch)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    y = torch.from_numpy(labels).long()
    start = time.perf_counter()
    robust = labels_of(model, x, size) == y
    results = {"clean": (time.perf_counter() - start, 0, 0, robust.numpy().copy())}
    for name, attack in torch_attacks(model, eps):
        model.forwards = model.backwards = 0
        start = time.perf_counter()
        left = torch.nonzero(robust)[:, 0]
        for rows in left.split(size):
            x_adv = attack(x[rows], y[rows])
            robust[rows] = labels_of(model, x_adv, size) == y[rows]
        seconds = time.perf_counter() - start
        print(f"torch {name}: {seconds:.1f} s, {robust.float().mean():.2%}", flush=True)
        counts = model.forwards, model.backwards
        results[name] = (seconds, *counts, robust.numpy().copy())
    return results


def torch_attacks(model: Any, eps: float) -> list[tuple[str, Any]]:
    """AutoAttack's standard version out of the parts of torchattacks."""
    import torchattacks as ta

    common = {"norm": "Linf", "eps": eps, "seed": 0}
    many = {"n_classes": TARGETS + 1, "steps": STEPS}
    return [
        ("apgd-ce", ta.APGD(model, steps=STEPS, loss="ce", **common)),
        ("apgd-t", ta.APGDT(model, **many, **common)),
        ("fab-t", ta.FAB(model, multi_targeted=True, **many, **common)),
        ("square", ta.Square(model, n_queries=QUERIES, resc_schedule=False, **common)),
    ]


def labels_of(model: Any, x: Any, size: int) -> Any:
    """Predictions, in batches."""
    import torch

    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in x.split(size)])


def counting(function: Any) -> Any:
    """A module that counts the examples that pass through it, both ways."""
    import torch

    class Module(torch.nn.Module):
        forwards = backwards = 0

        def __init__(self):
            super().__init__()
            # torchattacks asks the parameters which device the model is on.
            self.device_of = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            self.forwards += len(x)
            self.backwards += len(x) * x.requires_grad
            return function(x)

    return Module().eval()


def cifar10(data_dir: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) in [0, 1] and labels, in the order of the dataset."""
    from robustvit.data.sources import open_source
    from robustvit.data.transforms import EvalTransform

    source, transform = (
        open_source("cifar10", split, data_dir=data_dir),
        EvalTransform(32),
    )
    examples = [source[i] for i in range(len(source))]
    images = np.stack([transform(example["image"]) for example in examples])
    labels = np.array([example["label"] for example in examples], np.int32)
    return images.astype(np.float32) / 255, labels


def show(args: argparse.Namespace, report: Any, theirs: Any) -> None:
    """The table, as Markdown."""
    n, eps = len(report.labels), float(report.threat.eps) * 255
    print(
        f"\n{args.network}, {n} images, linf eps {eps:g}/255, "
        f"{args.threads} threads, batches of {args.batch_size} and "
        f"{args.torch_batch_size} (torch)\n"
    )
    print("| | accuracy | torch | seconds | torch | F+B | torch | different |")
    print("|---|---|---|---|---|---|---|---|")
    for number, name in enumerate(report.attacks, 1):
        seconds, forwards, backwards, robust = theirs[name]
        effort = report.effort[name]
        ours = (report.broken_by == -1) | (report.broken_by > number)
        print(
            f"| {name} | {ours.mean():.2%} | {robust.mean():.2%} | "
            f"{effort['seconds']:.1f} | {seconds:.1f} | "
            f"{effort['forwards'] / n:.0f}+{effort['backwards'] / n:.0f} | "
            f"{forwards / n:.0f}+{backwards / n:.0f} | {(ours != robust).sum()} |"
        )
    total = sum(seconds for seconds, *_ in theirs.values())
    print(f"| all | | | {report.seconds:.1f} | {total:.1f} | | | |\n")
    print(f"{total / report.seconds:.2f} times as fast, compilation included")


def compile_time(name: str) -> None:
    """Seconds of tracing, lowering and compiling one evaluation."""
    import jax
    import jax.numpy as jnp

    import robustvit as rv

    spent = collections.Counter()
    model = rv.create_model(name, num_classes=1000)
    size = getattr(model, "image_size", 224)
    variables = jax.jit(lambda key: model.init(key, jnp.zeros((1, size, size, 3))))(
        jax.random.key(0)
    )
    forward = rv.logits_fn(model, variables)
    images = np.random.default_rng(0).random((8, size, size, 3), np.float32)
    labels = np.asarray(jax.jit(lambda f, x: f(x))(forward, images)).argmax(-1)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: spent.update({event: seconds})
    )
    # As few steps as there can be: a program does not depend on their number.
    attacks = {
        "apgd-ce": rv.APGD(steps=1),
        "apgd-t": rv.APGD("targeted_dlr", steps=1, targets=1),
        "fab-t": rv.FAB(targets=1, steps=1),
        "square": rv.Square(queries=1),
    }
    start = time.perf_counter()
    rv.evaluate(
        forward, images, labels, rv.ThreatModel("linf", 1e-8), attacks, batch_size=8,
        progress=False,
    )  # fmt: skip
    wall = time.perf_counter() - start
    for part in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile"):
        print(f"{part} {spent[f'/jax/core/compile/{part}_duration']:.1f} s")
    print(f"{name} at {size}: {wall:.1f} s in all, a few steps of each attack included")


if __name__ == "__main__":
    main()
