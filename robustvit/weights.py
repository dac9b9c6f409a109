"""What the commands about weights do: list models, start from weights, hand them back.

initial_variables(model, "deit3_small.pth", new_head=True, seed=0)
"""

from __future__ import annotations

import fnmatch
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax

from robustvit import interop, lookup, runs
from robustvit.interop.export import normalization, state_dict
from robustvit.models import MODELS
from robustvit.models.facts import facts
from robustvit.parallel import data_mesh, replicated
from robustvit.training.checkpoint import Checkpoints
from robustvit.training.step import init_state, with_variables
from robustvit.workdir import claim

HUB = "hf:"
SUFFIXES = {"timm": ".pth", "safetensors": ".safetensors"}


def initial_variables(
    model: Any, source: str, *, new_head: bool, seed: int
) -> dict[str, Any]:
    """Variables to start a training from.

    Args:
      model: what is to be trained.
      source: the folder of a run, a weight file, or "hf:" and a repository of timm's.
      new_head: start the head afresh.
      seed: of that head.
    """
    fitted = partial(interop.load_torch, model, new_head=new_head, seed=seed)
    if source.startswith(HUB):
        return fitted(interop.weights_from_hub(source.removeprefix(HUB)))
    if "://" not in source and not Path(source).is_dir():
        return fitted(source)
    trained, variables = runs.load_run(source)
    statistics = normalization(trained, variables)
    names = {f"normalize.{name}": value for name, value in statistics.items()}
    return fitted({**state_dict(trained, variables), **names})


def start_from(config: runs.Config, run: runs.Run, workdir: Path) -> Any:
    """The config's initial variables, unless `workdir` has a checkpoint; or None."""
    if not config.init_from:
        return None
    if (workdir / "checkpoints").is_dir():
        with Checkpoints(workdir, read_only=True) as checkpoints:
            if checkpoints.latest_step is not None:
                return None
    return initial_variables(
        run.model, config.init_from, new_head=config.init_new_head, seed=config.seed
    )


def import_weights(config: runs.Config, source: str, workdir: Path) -> None:
    """Make a run out of published weights: a checkpoint at step 0, and the config."""
    run = runs.build(config)
    variables = initial_variables(
        run.model, source, new_head=config.init_new_head, seed=config.seed
    )
    claim(workdir, run.config)
    init = partial(init_state, run.model, run.tx, image_size=run.data.image_size)
    make = jax.jit(
        partial(init, ema=run.settings.ema_decay > 0),
        out_shardings=replicated(data_mesh()),
    )
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(with_variables(make(run.key), variables), run.config, None)


def export_weights(
    workdir: str, checkpoint: str, fmt: str, output: Path | None
) -> Path:
    """Write a run's weights for timm; the path of the file."""
    if output is None and "://" in workdir:
        raise ValueError(f"{workdir} is remote: give --output, a local file")
    model, variables, _, step = runs.open_run(workdir, checkpoint)
    path = output or Path(workdir) / f"weights-{step}{SUFFIXES[fmt]}"
    if path.suffix != SUFFIXES[fmt]:
        raise ValueError(f"{path} must end in {SUFFIXES[fmt]} for --format {fmt}")
    interop.save_torch(model, variables, path)
    return path


def model_table(pattern: str, *, as_json: bool) -> str:
    """The models whose name has `pattern` in it (* and ? are wildcards)."""
    wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    rows = {n: f for n, f in facts().items() if fnmatch.fnmatch(n, wanted)}
    if not rows:
        raise ValueError(f"no model has {pattern!r}: {lookup.nearest(pattern, MODELS)}")
    if as_json:
        return json.dumps({name: row._asdict() for name, row in rows.items()}, indent=1)
    width = max(map(len, rows))
    lines = [f"{'model':<{width}} {'params':>8} {'GMACs':>7} {'size':>5}  weights"]
    for name, row in rows.items():
        lines.append(
            f"{name:<{width}} {row.params / 1e6:7.2f}M {row.gmacs:7.2f} "
            f"{row.image_size:>5}  {row.weights or '-'}"
        )
    return "\n".join(lines)
