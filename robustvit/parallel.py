"""One mesh axis, "data": the batch is split over it, parameters are on every device.

mesh = data_mesh()
batch = put_batch(batch, mesh)
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from robustvit.types import Device, PyTree

AXIS = "data"


def data_mesh(devices: Sequence[Device] | None = None) -> Mesh:
    """All devices (or those given) in a row."""
    devices = jax.devices() if devices is None else list(devices)
    # Auto: the default, Explicit, makes an ordinary concatenate of a sharded and a
    # replicated array an error (jax 0.10).
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis cut into one piece per device."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """This host's rows to the devices, as part of one global batch."""
    return jax.make_array_from_process_local_data(split(mesh), batch)


def check_divisible(batch_size: int, mesh: Mesh) -> None:
    """Raise ValueError unless every device gets the same number of examples."""
    if batch_size % mesh.size:
        raise ValueError(
            f"batch_size={batch_size} must be divisible by the {mesh.size} devices"
        )
