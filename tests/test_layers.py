"""Imports only go down (design: four layers, siblings apart), and stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "robustvit"

# The first prefix that fits a module decides its room; rooms of one layer are apart.
ROOMS = {
    "types": 0, "lookup": 0, "threat": 0, "losses": 0,
    "attacks": 1, "models": 1,
    "objectives": 2, "training.step": 2, "data": 2, "parallel": 2, "interop": 2,
    "training.optim": 2, "training.schedules": 2, "training.checkpoint": 2,
    "training.metrics": 2, "training.interrupts": 2, "training.display": 2,
    "training.throughput": 2, "training.settings": 2, "training.patience": 2,
    # Parts of the loop, one on the other:
    "training.watchdog": 2.5, "training.validation": 2.5, "training.guard": 2.75,
    "training.loop": 3, "evaluation": 3, "analysis": 3, "planning": 3,
    "runs": 4, "run_data": 4, "recipe": 4, "commands": 4, "weights": 4,
    "config_files": 4, "workdir": 4, "augmentation": 4, "doctor": 4, "published": 4,
    "results": 4, "sweep": 4, "sweep_runs": 4, "cli": 4, "cli_eval": 4, "cli_verify": 4,
    "cli_data": 4, "cli_report": 4, "cli_sweep": 4,
    "__main__": 5, "__init__": 5,
}  # fmt: skip

# Objectives and the step that runs them are one room with two doors.
ALLOWED = {
    ("training.step", "objectives"),
    ("threat", "types"),  # the nouns are everybody's
    ("losses", "types"),
}
ONE_ROOM = {
    "runs", "run_data", "recipe", "augmentation", "commands", "weights", "config_files",
    "workdir", "doctor", "published", "results", "sweep", "sweep_runs", "cli",
    "cli_eval", "cli_verify", "cli_data", "cli_report", "cli_sweep",
}  # fmt: skip
PURE = ("types", "threat", "losses", "attacks", "models", "objectives", "training.step")
PURE_IMPORTS = {"jax", "flax", "optax", "jaxtyping", "numpy", "robustvit", "__future__"}

MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
)


def room(module):
    parts = module.split(".")
    names = [".".join(parts[:i]) for i in range(len(parts), 0, -1)]
    return next((name for name in names if name in ROOMS), None)


def imported(module):
    """Modules of ours, and top-level names of others, that a file imports."""
    tree = ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text())
    ours, others = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, _, rest = name.partition(".")
            if head == "robustvit":
                ours.add(rest)
            else:
                others.add(head)
    return ours, others


def packages_without_code():
    return {"training.__init__", "analysis.__init__", "data.__init__"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - packages_without_code()))
def test_imports_go_down(module):
    here = room(module)
    assert here is not None, f"{module} has no place in ROOMS"
    for target in imported(module)[0]:
        there = room(target)
        if there is None or there == here or (here, there) in ALLOWED:
            continue
        if {here, there} <= ONE_ROOM:
            continue
        assert ROOMS[there] < ROOMS[here], f"{module} must not import {target}"


@pytest.mark.parametrize(
    "module", [m for m in MODULES if (room(m) or "") in PURE and "__init__" not in m]
)
def test_the_pure_layers_need_little(module):
    allowed = PURE_IMPORTS | set(sys.stdlib_module_names)
    assert imported(module)[1] <= allowed


def test_every_file_is_short_and_every_room_is_listed():
    for module in MODULES:
        path = PACKAGE / (module.replace(".", "/") + ".py")
        assert len(path.read_text().splitlines()) <= 300, path


def test_import_is_light():
    """Colab imports neither datasets, nor checkpoints, nor plotting."""
    heavy = "tensorflow tensorflow_datasets grain orbax sklearn torch matplotlib cv2"
    code = (
        "import sys, robustvit; "
        f"print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
