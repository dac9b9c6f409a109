"""`robustvit verify REPORT`: can this report of `robustvit eval` be trusted?"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What every report of `robustvit eval` holds.
KEYS = {
    "workdir": str, "step": int, "dataset": str, "split": str, "seed": int,
    "threat": dict, "attacks": dict, "fingerprints": dict, "broken_by": list,
    "versions": dict, "device": str,
}  # fmt: skip


def add_verify(commands: Any) -> None:
    """Add the command and its flags."""
    verify = commands.add_parser(
        "verify",
        help="attack a sample of a report's examples again: can it be trusted?",
        description="Compares the model and the data with the report's fingerprints, "
        "its numbers with its verdicts, and the verdicts of a random sample with those "
        "of the same attacks, run again. Where the devices and jax are the report's, "
        "every verdict must come out the same; elsewhere floats are rounded in another "
        "way, and 2 % of the sample, or one example, may differ.",
        epilog="Exit code: 0 trusted, 1 not trusted, 2 bad input.",
    )
    add = verify.add_argument
    add("report", type=Path, help="a JSON file that `robustvit eval` wrote")
    add("--examples", type=int, default=32, help="to attack again; default: 32")
    add("--seed", type=int, help="of the sample; default: a new one, which is printed")
    add("--workdir", help="folder of the run, if it is no longer where it was")
    add("--data-dir", help="where TFDS datasets lie; default: as in training")
    add("--batch-size", type=int, default=128, help="default: 128, as for eval")
    verify.set_defaults(run=_verify)


def _verify(args, _):
    from robustvit import runs
    from robustvit.evaluation import logits_fn
    from robustvit.evaluation.verify import verify
    from robustvit.threat import format_eps

    saved = read_report(args.report)
    threat, attacks = question(saved)
    workdir = args.workdir or saved["workdir"]
    _check_workdir(workdir, args.report)
    model, variables, config, step = runs.open_run(workdir, saved["step"])
    config.data.name = saved["dataset"]
    config.data.dir = args.data_dir or config.data.dir
    seed = secrets.randbelow(2**32) if args.seed is None else args.seed
    print(f"{args.report}: {workdir}, step {step}; {saved['dataset']} {saved['split']}")
    print(f"{threat.norm} eps {format_eps(threat.eps)}; sample of seed {seed}")
    for name, attack in attacks.items():
        print(f"  {name}: {attack}")
    found = verify(
        saved,
        logits_fn(model, variables),
        runs.labelled_chunks(config, runs.open_data(config, saved["split"])),
        None,
        threat,
        attacks,
        examples=args.examples,
        seed=seed,
        batch_size=args.batch_size,
        progress=sys.stderr.isatty(),
    )
    print(found)
    return 0 if found.trusted else 1


def read_report(path: Path) -> dict[str, Any]:
    """The JSON of a report, every key of KEYS in it.

    Raises:
      ValueError: if it is not there, or is something else.
    """
    if not path.is_file():
        raise ValueError(f"there is no report {path}")
    try:
        saved = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None
    given = saved if isinstance(saved, dict) else {}
    missing = [k for k, kind in KEYS.items() if not isinstance(given.get(k), kind)]
    if missing:
        raise ValueError(
            f"{path} is no report of `robustvit eval`: {', '.join(missing)} missing"
        )
    if not given["broken_by"] or {type(v) for v in given["broken_by"]} != {int}:
        raise ValueError(f"{path}: broken_by must be whole numbers, one per example")
    return given


def question(saved: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The threat model and the attacks that a report says it is about."""
    from robustvit.attacks.as_json import from_json
    from robustvit.threat import ThreatModel

    norm, eps = saved["threat"].get("norm"), saved["threat"].get("eps_float")
    if not isinstance(eps, float):
        raise ValueError(f"the report's threat must have a number eps_float, got {eps}")
    attacks = {name: from_json(attack) for name, attack in saved["attacks"].items()}
    return ThreatModel(str(norm), eps), attacks


def _check_workdir(workdir, report):
    from etils import epath

    if not (epath.Path(workdir) / "checkpoints").exists():
        raise ValueError(
            f"{report} is about the run in {workdir}, which is not here: "
            "say where it is now with --workdir DIR"
        )
