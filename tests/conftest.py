"""Every test sees four virtual CPU devices and float32 matrix products.

What XLA compiled for one test is there for the others, and for the programs they start.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(tempfile.gettempdir(), f"robustvit-tests-{os.getuid()}"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

if os.environ["JAX_PLATFORMS"] == "cpu":
    jax.config.update("jax_num_cpu_devices", 4)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def tfds_dir() -> str:
    """Folder of prepared TFDS datasets, which a user does not have."""
    if not (SHARED / "tfds").is_dir():
        pytest.skip("needs the project's prepared datasets in ../shared/tfds")
    return str(SHARED / "tfds")
