"""`robustvit eval`: its flags, and the question that they make together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

# Filled in after parsing: a protocol must know which flags were really given.
DEFAULTS = {
    "attack": "pgd",
    "version": "standard",
    "steps": 20,
    "restarts": 1,
    "loss": "cross_entropy",
    "seed": 0,
}


def add_eval(commands: Any) -> None:
    """Adds the command to a parser's."""
    evaluate = commands.add_parser(
        "eval",
        help="attack a trained model and write a robustness report",
        description="Accuracy of a run's model, clean and under attack, as JSON and as "
        "a picture.",
        epilog="For a number that compares with RobustBench's: robustvit eval "
        "--workdir runs/s12 --protocol robustbench",
    )
    _add_question(evaluate.add_argument)
    _add_protocol(evaluate.add_argument)
    _add_rest(evaluate.add_argument)
    evaluate.set_defaults(run=run)


def _add_question(add):
    add("--workdir", required=True, help="folder of the run (may be gs://...)")
    add("--checkpoint", default="best", help="best, latest or a step; default: best")
    add(
        "--attack",
        choices=(
            "clean", "fgsm", "pgd", "autoattack",
            "apgd-ce", "apgd-t", "fab-t", "square",
        ),
        help="default: pgd; a number to publish wants autoattack, which can be killed "
        "and goes on with the same command",
    )  # fmt: skip
    add(
        "--version",
        choices=("standard", "plus", "rand"),
        help="of autoattack; default: standard",
    )
    add("--steps", type=int, help="of pgd; default: 20")
    add("--step-size", help="like --eps; default: 2.5 eps / steps")
    add("--restarts", type=int, help="an example falls if any run breaks it; default 1")
    add(
        "--loss",
        help="cross_entropy (default), margin, dlr or targeted_cross_entropy",
    )
    add("--norm", help="linf, l2 or l1; default: the one the run was trained for")
    add("--eps", help="like 8/255; default: the one the run was trained for")
    add(
        "--split",
        help="like test[:1000], or robustbench: its images of ImageNet or CIFAR in its "
        "order; default: the run's test split",
    )
    add("--seed", type=int, help="of the attack's random starts; default: 0")


def _add_protocol(add):
    add(
        "--protocol",
        choices=("robustbench",),
        help="ask exactly what RobustBench asks: AutoAttack standard on its 5,000 "
        "images of ImageNet (linf 4/255), or on the test set of CIFAR (linf 8/255, l2 "
        "0.5); also writes its JSON and AutoAttack's log beside the report, and can be "
        "killed and goes on",
    )
    add(
        "--examples",
        type=int,
        help="with --protocol: the first so many images; default: all, which the "
        "leaderboard wants",
    )
    add(
        "--model-info",
        type=Path,
        metavar="FILE.json",
        help="with --protocol: what its JSON says of the model: name, authors, link, "
        "venue, architecture, reported, additional_data (true or false), "
        "number_forward_passes; default: left empty",
    )


def _add_rest(add):
    add(
        "--curve",
        type=int,
        default=0,
        metavar="POINTS",
        help="robust accuracy at so many smaller eps as well, from the same run",
    )
    add("--data-dir", help="where TFDS datasets lie; default: as in training")
    add("--batch-size", type=int, default=128, help="default: 128")
    add(
        "--report",
        type=Path,
        help="default: WORKDIR/report-ATTACK-NORM-EPS.json; a .png goes beside it",
    )


def run(args: argparse.Namespace, _: list[str]) -> None:
    """Evaluates, and writes what was asked for."""
    from robustvit import commands, runs

    config = runs.open_run(args.workdir, args.checkpoint)[2]
    common = {
        "checkpoint": args.checkpoint,
        "batch_size": args.batch_size,
        "data_dir": args.data_dir,
        "curve": args.curve,
    }
    if args.protocol:
        _run_robustbench(args, config, common)
        return
    for flag in ("examples", "model_info"):
        if getattr(args, flag) is not None:
            raise ValueError(f"{_written(flag)} needs --protocol robustbench")
    question, name = _question(args, config)
    path = args.report or commands.default_report_path(
        args.workdir, name, question["threat"]
    )
    resumable = name not in ("clean", "fgsm", "pgd")
    state_dir = path.with_suffix(".state") if resumable else None
    commands.evaluate_run(args.workdir, path, **question, **common, state_dir=state_dir)


def _question(args, config):
    """What the flags ask, and its name."""
    from robustvit import commands
    from robustvit.threat import ThreatModel

    flags = {k: v if getattr(args, k) is None else getattr(args, k)
             for k, v in DEFAULTS.items()}  # fmt: skip
    threat = ThreatModel(args.norm or config.threat.norm, args.eps or config.threat.eps)
    name, seed = flags.pop("attack"), flags.pop("seed")
    attacks = commands.attacks_from_flags(
        name, threat, step_size=args.step_size, **flags
    )
    question = {"threat": threat, "attacks": attacks, "split": args.split, "seed": seed}
    return question, name


def _run_robustbench(args, config, common):
    """All of the protocol; what contradicts it is told before any work."""
    from robustvit import commands, runs
    from robustvit.attacks import autoattack
    from robustvit.data.robustbench import dataset_of
    from robustvit.evaluation import robustbench

    dataset = dataset_of(config.data.name)
    rules = robustbench.rules_of(dataset, args.norm or config.threat.norm)
    split = rules.split(args.examples)
    _check_free(args, rules, split)
    rules.check_preprocessing(runs.eval_transform(config))
    info = robustbench.ModelInfo()
    if args.model_info is not None:
        info = robustbench.read_model_info(args.model_info)
    name = "robustbench" + (f"-{args.examples}" if args.examples else "")
    path = args.report or commands.default_report_path(args.workdir, name, rules.threat)
    report = commands.evaluate_run(
        args.workdir,
        path,
        threat=rules.threat,
        attacks=autoattack("standard"),
        split=split,
        seed=rules.seed,
        on_error="raise",  # a skipped image would be missing from the number
        state_dir=path.with_suffix(".state"),
        **common,
    )
    commands.write_entry(report, path, rules, info)


def _check_free(args, rules, split):
    """Raise ValueError for flags that ask something else than the protocol."""
    from robustvit.threat import parse_eps

    fixed = {
        "attack": "autoattack", "version": "standard", "eps": rules.eps, "split": split,
        "seed": rules.seed, "steps": None, "step_size": None, "restarts": None,
        "loss": None,
    }  # fmt: skip
    given = {k: v for k in fixed if (v := getattr(args, k)) is not None}
    if "eps" in given and parse_eps(args.eps, rules.norm) == rules.threat.eps:
        given["eps"] = rules.eps
    wrong = [
        f"{_written(k)} {v}" + (f" (wanted {fixed[k]})" if fixed[k] is not None else "")
        for k, v in given.items()
        if v != fixed[k]
    ]
    if wrong:
        raise ValueError(
            f"--protocol robustbench fixes what is asked of {rules.dataset} in "
            f"{rules.norm}; leave out {', '.join(wrong)}"
        )


def _written(flag):
    return f"--{flag.replace('_', '-')}"
