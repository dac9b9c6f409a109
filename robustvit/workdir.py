"""The folder of a run: whose it is, whether it can be written, what lies in it.

    claim(workdir, config)     # before any work: refuses the folder of another run

Whatever is written here is written whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CONFIG = "config.json"

# Keys that may change between two starts of one run: they do not change its result.
FREE = (
    "log.",
    "checkpoint.every",
    "checkpoint.keep",
    "data.dir",
    "data.num_threads",
    "report.",
)


def claim(workdir: Path, config: Mapping[str, Any], *, needs_bytes: int = 0) -> None:
    """Make `workdir` the folder of the run with this config.

    Raises:
      ValueError: if it holds a run of another config; the message says which keys
        differ, and nothing is changed.
      OSError: if it cannot be written or has too little room.
    """
    _check_writable(workdir, needs_bytes)
    path = workdir / CONFIG
    if path.exists():
        changed = list(differences(json.loads(path.read_text()), config))
        if changed:
            raise ValueError(
                f"{workdir} holds a run of another config; nothing was changed. "
                "Choose another --workdir, or set these back:\n  "
                + "\n  ".join(changed)
            )
    write_json(path, config)


def write_json(path: Path, value: Any) -> None:
    """Write all of it or nothing."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(value, indent=1))
    os.replace(draft, path)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What sets two configs apart, a key a line; keys in FREE left out."""
    old, new = flatten(old), flatten(new)
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, "(absent)"), new.get(key, "(absent)")
        if before != after and not key.startswith(FREE):
            yield f"{key}: {before} in the folder, {after} now"


def _check_writable(workdir, needs_bytes):
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write to workdir {workdir}: {error.strerror or error}"
        ) from error
    free = shutil.disk_usage(workdir).free
    if free < needs_bytes:
        raise OSError(
            f"workdir {workdir} has {free / 1e9:.1f} GB left, and the checkpoints of "
            f"this run take {needs_bytes / 1e9:.1f} GB"
        )
