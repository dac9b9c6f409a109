"""The command line: `robustvit COMMAND ...`, the same as `python -m robustvit`.

Only flags and words are handled here. Each command turns them into objects with
`runs.py` and calls the library.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from robustvit.cli_data import add_data
from robustvit.cli_eval import add_eval
from robustvit.cli_report import add_report
from robustvit.cli_sweep import add_sweep
from robustvit.cli_verify import add_verify

MAX_CPU_DEVICES = 8  # more would leave each with too little of a batch
CONFIG_HELP = (
    "config file, with a variant behind a colon: configs/quickstart.py:standard"
)
OVERRIDES = (
    "Any key of the config can be set as --config.KEY=VALUE, e.g. "
    "--config.threat.eps=4/255 --config.optim.lr=1e-3. `robustvit config --config "
    "FILE` lists the keys."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 1 failed, 2 bad input, 130/42 stopped."""
    args, overrides = _parse(sys.argv[1:] if argv is None else list(argv))
    # Silences XLA's log lines about the machine; errors still come as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # A run that starts again does not compile again.
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{cache}/robustvit/jax")
    if args.command in ("eval", "verify"):
        # On a CPU, XLA's programs for small batches use one thread of a device.
        cores = min(os.cpu_count() or 1, MAX_CPU_DEVICES)
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores))
    from robustvit.training.interrupts import Interrupted
    from robustvit.training.metrics import CollapsedError, NotFiniteError

    try:
        return args.run(args, overrides) or 0
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except NotFiniteError as error:
        print(f"robustvit: training diverged: {error}", file=sys.stderr)
        return 1
    except CollapsedError as error:
        print(f"robustvit: training collapsed: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("ROBUSTVIT_TRACEBACK"):
            raise
        print(f"robustvit {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was lost but this command", file=sys.stderr)
        return 130


def _parse(argv):
    parser = argparse.ArgumentParser(
        prog="robustvit",
        description="Train adversarially robust vision models in JAX, and evaluate "
        "them honestly.",
        epilog="`robustvit COMMAND --help` explains a command. Start with: robustvit "
        "train --config configs/quickstart.py --workdir runs/quickstart",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_train(commands)
    add_eval(commands)
    add_verify(commands)
    add_data(commands)
    add_sweep(commands)
    add_report(commands)
    _add_models(commands)
    _add_import(commands)
    _add_export(commands)
    _add_config(commands)
    _add_doctor(commands)
    args, rest = parser.parse_known_args(argv)
    unknown = [a for a in rest if a.startswith("-") and not a.startswith("--config.")]
    if unknown or (rest and not hasattr(args, "config")):
        parser.error(f"unknown arguments: {' '.join(unknown or rest)}")
    return args, rest


def _add_train(commands):
    train = commands.add_parser(
        "train",
        help="train a model, or go on with a training; ends in a report and pictures",
        description="Train what the config says. The same command on the same folder "
        "goes on where it stopped; Ctrl-C and SIGTERM save a checkpoint first.",
        epilog=OVERRIDES,
    )
    train.add_argument("--config", required=True, help=CONFIG_HELP)
    train.add_argument(
        "--workdir", required=True, type=Path, help="folder of the run; made if missing"
    )
    train.set_defaults(run=_train)


def _add_models(commands):
    models = commands.add_parser(
        "models",
        help="list the models: parameters, GMACs, input size, where weights are",
        description="Every name that model.name and rv.create_model take.",
    )
    models.add_argument("pattern", nargs="?", default="*", help="like resnet or *p16*")
    models.add_argument("--json", action="store_true", help="as JSON")
    models.set_defaults(run=_models)


def _add_import(commands):
    weights = commands.add_parser(
        "import-weights",
        help="make a run out of published weights, to evaluate or to fine-tune",
        description="Reads weights of timm, Facebook, DINOv2, OpenCLIP, RobustBench or "
        "the Light Recipe into the config's model, and writes them as the checkpoint "
        "at step 0 of a run, for `robustvit eval` and `robustvit train`.",
        epilog=OVERRIDES,
    )
    add = weights.add_argument
    add("--config", required=True, help=CONFIG_HELP)
    add(
        "--weights",
        required=True,
        help=".pth, .pth.tar, .pt, .safetensors, a run's folder, or hf:timm/...",
    )
    add("--workdir", required=True, type=Path, help="folder of the run to be made")
    weights.set_defaults(run=_import)


def _add_export(commands):
    export = commands.add_parser(
        "export-weights",
        help="write a run's weights as timm reads them",
        description="The state dict that timm (or the model's own repository) loads "
        "with strict=True. torch is not needed. A .safetensors file also carries the "
        "input normalisation; timm applies that outside the model.",
    )
    add = export.add_argument
    add("--workdir", required=True, help="folder of the run (may be gs://...)")
    add("--checkpoint", default="best", help="best, latest or a step; default: best")
    add("--format", default="safetensors", choices=("timm", "safetensors"))
    add("--output", type=Path, help="default: WORKDIR/weights-STEP.safetensors or .pth")
    export.set_defaults(run=_export)


def _add_config(commands):
    config = commands.add_parser(
        "config",
        help="print a config: every key, its type, what differs from the defaults",
        epilog=OVERRIDES,
    )
    config.add_argument("--config", required=True, help=CONFIG_HELP)
    config.set_defaults(run=_config)


def _add_doctor(commands):
    doctor = commands.add_parser(
        "doctor", help="check devices, collectives, disk, datasets, input pipeline"
    )
    doctor.add_argument("--data-dir", help="where TFDS datasets lie")
    doctor.add_argument("--dataset", default="digits", help="to time; default: digits")
    doctor.add_argument("--split", default="train", help="to time; default: train")
    doctor.add_argument("--workdir", default=".", help="whose disk to look at")
    doctor.set_defaults(run=_doctor)


def _train(args, overrides):
    from robustvit.commands import train
    from robustvit.config_files import load_config

    train(load_config(args.config, overrides), args.workdir)


def _models(args, _):
    from robustvit.weights import model_table

    print(model_table(args.pattern, as_json=args.json))


def _import(args, overrides):
    from robustvit.config_files import load_config
    from robustvit.weights import import_weights

    import_weights(load_config(args.config, overrides), args.weights, args.workdir)
    print(f"{args.workdir} is ready: robustvit eval --workdir {args.workdir}")


def _export(args, _):
    from robustvit.weights import export_weights

    path = export_weights(args.workdir, args.checkpoint, args.format, args.output)
    print(f"wrote {path}")


def _config(args, overrides):
    from robustvit.config_files import load_config, show

    config = load_config(args.config, overrides)
    from configs import common  # `load_config` has put its folder on the path
    from robustvit.runs import resolve

    try:
        print(show(resolve(config), common.default()))
    except ValueError as error:  # a dataset that is not here, say
        print(show(config, common.default()))
        print(f"\nas written, because it cannot be resolved here: {error}")


def _doctor(args, _):
    from robustvit.doctor import examine

    return examine(args.data_dir, args.dataset, args.split, Path(args.workdir))
