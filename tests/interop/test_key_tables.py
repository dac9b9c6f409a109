"""Every variable of every published model has timm's name and shape."""

import json

import pytest

from robustvit.interop.names import entries
from robustvit.interop.weight_files import COUNTER
from robustvit.models import create_model
from tests.interop.key_tables import PATH, expand

TABLES = json.loads(PATH.read_text())
STATISTICS = ("running_mean", "running_var", COUNTER)


@pytest.mark.parametrize("name", TABLES)
def test_names_and_shapes_are_those_of_timm(name):
    reference = expand(TABLES[name])
    ours = {entry.key: entry.torch_shape for entry in entries(create_model(name))}
    assert ours == {k: v for k, v in reference.items() if not k.endswith(COUNTER)}
