"""Folders that look like finished runs, with reports that say what a test wants."""

import json

from robustvit.config_files import load_config
from robustvit.runs import to_plain
from tests.small_run import REPO

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
STEPS = 7  # of the best checkpoint


def fake_run(workdir, recipe, *overrides, validated=True):
    """A folder with the config of `configs/RECIPE` and metrics; returns it."""
    config = load_config(str(REPO / "configs" / recipe), overrides)
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(to_plain(config)))
    metric = config.checkpoint.best_metric
    if validated:
        records = [
            {"step": s, "epoch": s / 7, metric: v} for s, v in ((7, 0.5), (14, 0.4))
        ]
        (workdir / "metrics.jsonl").write_text(
            "".join(json.dumps(r) + "\n" for r in records)
        )
    return workdir


def fake_report(workdir, name, clean, after, *, images=5000, step=STEPS, eps=None):
    """`robustvit eval`'s JSON, with accuracies in per cent."""
    threat = json.loads((workdir / "config.json").read_text())["threat"]
    shares = {attack: share / 100 for attack, share in after.items()}
    report = {
        "step": step, "num_examples": images, "clean_accuracy": clean / 100,
        "robust_accuracy": min([clean / 100, *shares.values()]),
        "accuracy_after": shares,
        "threat": {"norm": threat["norm"], "eps": eps or threat["eps"]},
    }  # fmt: skip
    (workdir / name).write_text(json.dumps(report))
