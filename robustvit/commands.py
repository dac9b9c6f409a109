"""What `robustvit train` and `robustvit eval` do, once the words are parsed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax

from robustvit import runs
from robustvit.analysis.figures import save_curves
from robustvit.attacks import PGD, LabelAttack, autoattack, fgsm
from robustvit.attacks.autoattack import STANDARD
from robustvit.attacks.slots import SlotAttack
from robustvit.evaluation import Report, evaluate, logits_fn
from robustvit.evaluation.robustbench import ModelInfo, Rules, log_lines, to_entry
from robustvit.threat import ThreatModel, format_eps, parse_eps
from robustvit.training.loop import fit
from robustvit.training.step import init_state
from robustvit.weights import start_from
from robustvit.workdir import claim, write_json

REPORT = "report.json"


def train(config: runs.Config, workdir: Path) -> None:
    """Train, then report on the best checkpoint: JSON, a grid, training curves."""
    run = runs.build(config)
    variables = start_from(config, run, workdir)
    claim(workdir, run.config, needs_bytes=_checkpoint_bytes(run))
    fitted = fit(**run.fit_arguments(), workdir=workdir, variables=variables)
    save_curves(fitted.history, workdir / "curves.png")

    path = workdir / REPORT
    if path.exists() and json.loads(path.read_text())["step"] == fitted.best_step:
        say(f"{workdir} was finished before; delete {path} to evaluate it again")
    else:
        c = runs.resolve(config)
        threat = ThreatModel(c.threat.norm, c.threat.eps)
        attacks = pgd_attacks(threat, c.report.steps, restarts=c.report.restarts)
        evaluate_run(
            str(workdir), path, threat=threat, attacks=attacks, split=None, seed=0
        )
    say(
        f"in {workdir}: checkpoints/ (best: step {fitted.best_step}), {REPORT}, "
        "report.png, curves.png, metrics.jsonl, config.json"
    )


def evaluate_run(
    workdir: str,
    path: Path,
    *,
    threat: ThreatModel,
    attacks: Mapping[str, SlotAttack],
    split: str | None,
    seed: int,
    checkpoint: str = "best",
    batch_size: int = 128,
    data_dir: str | None = None,
    on_error: str | None = None,
    state_dir: Path | None = None,
    curve: int = 0,
) -> Report:
    """Evaluate a checkpoint on a split, and write `path` and a picture beside it.

    What is None is as the run's config has it.
    """
    model, variables, config, step = runs.open_run(workdir, checkpoint)
    config.data.dir = data_dir or config.data.dir
    config.data.on_error = on_error or config.data.on_error
    chosen: str = split or config.data.test_split
    source = runs.open_data(config, chosen)
    report = evaluate(
        logits_fn(model, variables),
        runs.labelled_chunks(config, source),
        None,
        threat,
        attacks,
        seed=seed,
        batch_size=batch_size,
        class_names=source.class_names,
        progress=sys.stderr.isatty(),
        state_dir=state_dir,
        curve=curve,
    )
    report.to_json(
        path,
        workdir=workdir,
        step=step,
        dataset=config.data.name,
        split=chosen,
        preprocessing=str(runs.eval_transform(config)),
    )
    picture = path.with_suffix(".png")
    report.plot(picture)
    say(f"{config.data.name} {chosen}, checkpoint {step}: {report}")
    say(f"wrote {path} and {picture}")
    return report


def write_entry(report: Report, path: Path, rules: Rules, info: ModelInfo) -> None:
    """RobustBench's JSON and AutoAttack's log, beside the report at `path`."""
    entry, log = path.with_suffix(".robustbench.json"), path.with_suffix(".log")
    lines = log_lines(report)
    write_json(entry, to_entry(report, rules, info))
    log.write_text("\n".join(lines) + "\n")
    say("\n".join([*lines, f"wrote {entry} and {log}"]))


def attacks_from_flags(
    name: str,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: str | None,
    restarts: int,
    loss: str,
    version: str = "standard",
) -> Mapping[str, SlotAttack]:
    """The attacks that `robustvit eval` was asked for."""
    if name == "autoattack":
        return autoattack(version)
    if name in STANDARD:
        return {name: STANDARD[name]}
    size = None if step_size is None else parse_eps(step_size, norm="l2")
    if name == "clean":
        return {}
    if name == "fgsm":
        attack = fgsm(float(threat.eps) if size is None else size)
        return {"fgsm": LabelAttack(attack, loss, restarts)}
    return pgd_attacks(threat, steps, step_size=size, loss=loss, restarts=restarts)


def pgd_attacks(
    threat: ThreatModel,
    steps: int,
    *,
    step_size: float | None = None,
    loss: str = "cross_entropy",
    restarts: int = 1,
) -> dict[str, LabelAttack]:
    """PGD with the usual step, 2.5 eps / steps (Madry et al.), unless one is given."""
    size = 2.5 * float(threat.eps) / max(steps, 1) if step_size is None else step_size
    return {f"pgd-{steps}": LabelAttack(PGD(steps, size), loss, restarts)}


def default_report_path(workdir: str, attack: str, threat: ThreatModel) -> Path:
    """Named after what was asked, so that no report replaces another question's."""
    eps = format_eps(float(threat.eps)).replace("/", "_")
    what = attack if attack == "clean" else f"{attack}-{threat.norm}-{eps}"
    return Path(workdir) / f"report-{what}.json"


def say(text: str) -> None:
    """To the person, from process 0 only."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)


def _checkpoint_bytes(run: runs.Run) -> int:
    """Room for the checkpoints that are kept, the best one, and one being written."""
    init = partial(
        init_state,
        run.model,
        run.tx,
        image_size=run.data.image_size,
        ema=run.settings.ema_decay > 0,
    )
    state = jax.eval_shape(init, run.key)
    leaves = jax.tree.leaves(state.replace(key=()))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    sound = int(run.watchdog is not None)  # what a rollback would go to
    return size * (run.settings.keep + 2 + sound)
