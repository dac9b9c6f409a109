"""Attacks survive their way through JSON, or say why not."""

import json

import pytest

import robustvit as rv
from robustvit.attacks.as_json import from_json, to_json


@pytest.mark.parametrize(
    "attack",
    [
        *rv.autoattack("plus").values(),
        rv.APGD("dlr", samples=20).resolve("l1", 10),
        rv.LabelAttack(rv.PGD(3, 2 / 255), loss="margin", restarts=4),
        rv.LabelAttack(rv.fgsm(0.1, random_start=False)),
    ],
    ids=str,
)
def test_there_and_back(attack):
    assert from_json(json.loads(json.dumps(to_json(attack)))) == attack


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"queries": 5}, "without a type"),
        ({"type": "Sqare", "queries": 5}, "unknown type of attack.*mean 'Square'"),
        ({"type": "Square", "query": 5}, "no argument 'query'.*mean 'queries'"),
        ({"type": "Square", "queries": "many"}, "Square cannot be rebuilt"),
        ({"type": "Square", "queries": 0}, "wanted counts >= 1"),
        ({"type": "LabelAttack", "attack": 3}, "is no attack|cannot be rebuilt"),
    ],
)
def test_what_is_no_attack_is_told(saved, message):
    with pytest.raises(ValueError, match=message):
        from_json(saved)
