"""A training that takes seconds: the quick start, with next to no model."""

from pathlib import Path

from robustvit.training.metrics import read_metrics

REPO = Path(__file__).parents[1]
QUICKSTART = str(REPO / "configs" / "quickstart.py")
SMALL = (
    "--config.model.args.dim=16",
    "--config.model.args.depth=1",
    "--config.model.args.num_heads=2",
    "--config.model.args.bn_group=0",
    "--config.data.train_split=train[:256]",
    "--config.data.val_split=train[256:300]",
    "--config.data.test_split=test[:40]",
    "--config.data.batch_size=32",
    "--config.attack.args.steps=1",
    "--config.report.steps=2",
    "--config.epochs=2",
    "--config.cooldown_epochs=0",
    "--config.log.every=2",
    "--config.threat.schedule.warmup_epochs=10",
)


def train_arguments(workdir, *extra, config=QUICKSTART):
    """Arguments of the `train` command; `extra` may override SMALL."""
    return ["train", "--config", config, "--workdir", str(workdir), *SMALL, *extra]


def records(workdir):
    """The metrics of a run, a line that is just being written left out."""
    return read_metrics(Path(workdir))
