"""Reading config files and overrides, and showing what came of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from robustvit.workdir import flatten


def load_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Run the config file `path.py` or `path.py:variant`, and apply overrides.

    Args:
      spec: the file, with its variant behind a colon.
      overrides: like "--config.optim.lr=1e-3".

    Raises:
      ValueError: in one sentence, with the nearest key where one is misspelt.
    """
    path = Path(spec.partition(":")[0])
    if not path.is_file():
        there = sorted(str(p) for p in Path("configs").glob("*.py"))
        known = f"; there are {', '.join(there)}" if there else ""
        raise ValueError(f"there is no config file {path}{known}")
    # So that `from configs import common` works from any folder.
    for folder in (str(path.resolve().parent.parent), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)

    values = flags.FlagValues()
    argv = ["robustvit", f"--config={spec}", *overrides]
    config_flags.DEFINE_config_file(
        "config", flag_values=values, lock_config=True, sys_argv=argv
    )
    try:
        values(argv)
        return values.config
    except flags.UnrecognizedFlagError as error:
        raise ValueError(f"unknown option --{error.flagname}") from None
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError) as error:
        raise ValueError(_explain(error, overrides)) from None


def _explain(error, overrides):
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0] if error.args else error).strip()
    if isinstance(error, AttributeError | KeyError):
        key = text.split("'")[1] if "'" in text else text
        guilty = [
            o.split("=")[0] for o in overrides if key in o.split("=")[0].split(".")
        ]
        hint = text.splitlines()[-1] if "Did you mean" in text else ""
        return f"{(guilty or ['the config'])[0]}: there is no key {key!r}. {hint}"
    if "Traceback" in text:  # of the config file; its last line says what is wrong
        return text.splitlines()[-1].partition(": ")[2]
    return text.removeprefix("flag ")


def show(config: ConfigDict, default: ConfigDict) -> str:
    """The tree, one key a line: value, type, and what the default was."""
    flat, base = flatten(config.to_dict()), flatten(default.to_dict())
    width = max(map(len, flat))
    lines = []
    for key, value in flat.items():
        changed = ""
        if key not in base:
            changed = "  <- not in the defaults"
        elif base[key] != value:
            changed = f"  <- default {base[key]!r}"
        lines.append(f"{key:<{width}}  {value!r} ({type(value).__name__}){changed}")
    gone = [key for key in base if key not in flat]
    return "\n".join(lines + [f"{key:<{width}}  only in the defaults" for key in gone])
