"""From a config to objects, and from the folder of a run back to its model.

Names end here: everything below takes models, attacks and schedules, not their names.

    run = build(config)
    fit(**run.fit_arguments(), workdir=workdir)
    model, variables = load_run(workdir)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from robustvit import augmentation, lookup, recipe
from robustvit.attacks import ATTACKS, PGD, STEP_SIZES
from robustvit.data import pipeline, transforms
from robustvit.data.loading import LoaderStats
from robustvit.data.sources import Source, open_source
from robustvit.evaluation.inputs import Chunk
from robustvit.models import MODELS, create_model
from robustvit.objectives import OBJECTIVES
from robustvit.parallel import data_mesh, replicated
from robustvit.run_data import train_batches
from robustvit.threat import ThreatModel, parse_eps
from robustvit.training import schedules
from robustvit.training.checkpoint import Checkpoints
from robustvit.training.settings import Settings, TrainData
from robustvit.training.watchdog import Watchdog
from robustvit.types import Objective

Config = Any  # a ConfigDict, of whose keys type checkers know nothing

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclass(frozen=True)
class Run:
    """The objects of one config, ready for `fit`."""

    config: dict[str, Any]  # resolved, plain types only
    model: Any
    objective: Objective
    attack: PGD
    tx: optax.GradientTransformation
    data: TrainData
    threat: ThreatModel
    threat_at: Callable[[int], ThreatModel]
    lr_at: schedules.EpochSchedule
    settings: Settings
    key: jax.Array
    watchdog: Watchdog | None

    def fit_arguments(self) -> dict[str, Any]:
        """What `robustvit.training.loop.fit` wants, but for the folder."""
        names = (
            "model objective tx data threat threat_at lr_at settings key config "
            "watchdog"
        )
        return {
            **{name: getattr(self, name) for name in names.split()},
            "validate_with": self.attack,
        }


def build(config: Config) -> Run:
    """Every object that training needs; raises ValueError for what does not fit."""
    c = resolve(config)
    threat = ThreatModel(c.threat.norm, c.threat.eps)
    model = build_model(c)
    attack = build_attack(c)
    build_objective = partial(
        lookup.build, "objective", OBJECTIVES, c.objective.name, model,
        **c.objective.args,
    )  # fmt: skip
    data = build_data(c)
    lr_at = recipe.build_lr(c)
    eps_at = schedules.eps_schedule(c.threat.schedule.name, float(threat.eps),
                                    **_without(c.threat.schedule, "name"))  # fmt: skip
    return Run(
        config=to_plain(c),
        model=model,
        objective=build_objective(attack),
        attack=attack,
        tx=recipe.build_optimizer(c, lr_at, data.steps_per_epoch),
        data=data,
        threat=threat,
        threat_at=lambda epoch: ThreatModel(threat.norm, eps_at(epoch)),
        lr_at=lr_at,
        settings=recipe.build_settings(c),
        key=jax.random.key(c.seed),
        watchdog=recipe.build_watchdog(c, attack, build_objective),
    )


def resolve(config: Config) -> Config:
    """A copy in which nothing is left to be worked out ("auto", 0 for "all")."""
    c = config.copy_and_resolve_references()
    for key, low in (("epochs", 1), ("cooldown_epochs", 0)):
        if c[key] < low:
            raise ValueError(f"{key}={c[key]} must be at least {low}")
    for key in ("every", "keep"):
        if c.checkpoint[key] < 1:
            raise ValueError(f"checkpoint.{key}={c.checkpoint[key]} must be at least 1")
    if c.checkpoint.patience < 0:
        raise ValueError(
            f"checkpoint.patience={c.checkpoint.patience} must be at least 0 (0: off)"
        )
    if c.log.every < 1:
        raise ValueError(f"log.every={c.log.every} must be at least 1")
    eps = parse_eps(c.threat.eps, c.threat.norm)
    args = c.attack.args
    if args.get("step_size") == "auto":
        steps = args.get("steps", 1)
        size = lookup.build("attack", STEP_SIZES, c.attack.name, eps, steps)
        args.step_size = repr(size)
    if "bn_group" not in _model_fields(c):
        c.model.args.bn_group = 0
    group, batch_size = c.model.args.bn_group, c.data.batch_size
    if group and batch_size % group:
        raise ValueError(
            f"data.batch_size={batch_size} is not a multiple of model.args.bn_group="
            f"{group}, the examples that share batch statistics (0: all)"
        )
    for split in (c.data.val_split, c.data.test_split):
        open_data(c, split)  # a misspelt split should not wait for its turn
    found = open_data(c, c.data.train_split).num_classes
    wanted = c.model.args.num_classes
    if 0 < wanted < found:
        raise ValueError(
            f"model.args.num_classes={wanted}, but {c.data.name} has labels up to "
            f"{found - 1}"
        )
    c.model.args.num_classes = wanted or found
    return c


def build_model(c: Config) -> Any:
    """The model of a resolved config.

    What a family has not (a group of BatchNorm, stochastic depth) must be 0; a model of
    one image size gets the data's.
    """
    fields = _model_fields(c)
    args = {k: v for k, v in c.model.args.items() if v or k in fields}
    for key in ("mean", "std", "bn_group"):
        if not args.get(key):
            args.pop(key, None)
    lookup.check("model.args.dtype", args["dtype"], DTYPES)
    args["dtype"] = DTYPES[args["dtype"]]
    if "image_size" in fields:
        args.setdefault("image_size", c.data.image_size)
    lists = {k: tuple(v) for k, v in args.items() if isinstance(v, list | tuple)}
    return create_model(c.model.name, **{**args, **lists})


def _model_fields(c):
    return lookup.arguments("model", MODELS, c.model.name)


def build_attack(c: Config) -> PGD:
    """The training attack of a resolved config."""
    args = dict(c.attack.args)
    args["step_size"] = parse_eps(args["step_size"], norm="l2")
    return lookup.build("attack", ATTACKS, c.attack.name, **args)


def build_data(c: Config) -> TrainData:
    """Training and held-out batches of a resolved config."""
    batch_size = c.data.batch_size
    transform, augment, mixing = augmentation.build(c)
    source = open_data(c, c.data.train_split)
    held_out = open_data(c, c.data.val_split)
    stats = LoaderStats()
    options = _loading(c, stats)
    batches, steps_per_epoch = train_batches(c, source)
    return TrainData(
        train=lambda step: batches(
            transform,
            batch_size=batch_size,
            seed=c.seed,
            start_step=step,
            **options,
        ),
        val=lambda: pipeline.eval_batches(
            held_out, eval_transform(c), batch_size=batch_size, **options
        ),
        steps_per_epoch=recipe.whole_updates(steps_per_epoch, c.optim.accumulate),
        batch_size=batch_size,
        image_size=c.data.image_size,
        augment=augment,
        mixing=mixing,
        skipped=lambda: stats.skipped,
    )


def open_data(c: Config, split: str) -> Source:
    """A split of the config's dataset."""
    return open_source(c.data.name, split, data_dir=c.data.dir or None)


def eval_transform(c: Config) -> transforms.EvalTransform:
    """How images reach the model outside training."""
    return transforms.EvalTransform(c.data.image_size, c.data.crop_pct)


def labelled_chunks(c: Config, source: Source) -> Iterator[Chunk]:
    """Float images in [0, 1] and labels of a source, for `evaluate`."""
    batches = pipeline.eval_batches(
        source,
        eval_transform(c),
        batch_size=512,
        **_loading(c, LoaderStats()),
    )
    for batch in batches:
        mask = batch["mask"]
        yield batch["image"][mask].astype(np.float32) / 255, batch["label"][mask]


def _loading(c, stats):
    return {
        "host": jax.process_index(),
        "num_hosts": jax.process_count(),
        "num_threads": c.data.num_threads or None,
        "on_error": c.data.on_error,
        "stats": stats,
    }


def load_run(workdir: str, step: int | str = "best") -> tuple[Any, dict[str, Any]]:
    """Model and evaluation variables of a finished (or running) training.

    Args:
      workdir: folder of the run; may be remote, like "gs://bucket/run".
      step: "best" (by the run's own metric), "latest", or a number.

    Returns:
      The module, and {"params", "batch_stats"} (averaged ones where the run has them).

    Raises:
      ValueError: if there is no such checkpoint.
    """
    model, variables, _, _ = open_run(workdir, step)
    return model, variables


def open_run(
    workdir: str, step: int | str = "best"
) -> tuple[Any, dict[str, Any], Config, int]:
    """As `load_run`, and with the run's config and the step that was chosen."""
    with Checkpoints(workdir, read_only=True) as checkpoints:
        config: Config = ConfigDict(checkpoints.config(checkpoints.find("latest")))
        number = checkpoints.find(step, config.checkpoint.best_metric)
        variables = checkpoints.variables(number, replicated(data_mesh()))
    return build_model(config), variables, config, number


def to_plain(config: Config) -> dict[str, Any]:
    """As JSON would give it back: tuples as lists."""

    def plain(value) -> Any:
        if isinstance(value, Mapping | ConfigDict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(v) for v in value] if isinstance(value, tuple | list) else value

    return plain(config)


def _without(config, key):
    return {name: value for name, value in config.items() if name != key}
