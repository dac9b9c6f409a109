import json

import pytest

from benchmarks import cases, train_step


@pytest.fixture
def tiny(monkeypatch):
    network = cases.NETWORKS["n12_32"]._replace(
        overrides={"depth": 0, "strides": (2, 4)}
    )
    monkeypatch.setitem(cases.NETWORKS, "tiny", network)


def test_a_row_has_its_ratios(tiny, tmp_path, capsys):
    path = tmp_path / "out.json"
    arguments = ["--cases", "tiny_pgd3", "--batch-size", "2", "--repeats", "1"]
    (row,) = train_step.main([*arguments, "--no-torch", "--json", str(path)])
    # Above 1 for elementwise work, which weighs more in such a small network; a loop
    # body counted once would give about 0.6.
    assert 1.0 < row["flops_over_floor"] < 1.5, row
    assert row["images_per_second"] > 0
    assert row["compile_of_one_step"] > 0.5
    assert json.loads(path.read_text())["rows"][0]["case"] == "tiny_pgd3"
    out = capsys.readouterr().out
    assert "| tiny_pgd3 | 2 |" in out
    assert "--cases tiny_pgd3" in out


@pytest.mark.parametrize("name", ["n12_224", "n13_224_fgsm", "n12_224_pgd"])
def test_unknown_cases_are_named(name):
    with pytest.raises(SystemExit, match=f"unknown case '{name}'"):
        cases.parse_case(name, None)


def test_more_steps_take_a_smaller_batch():
    assert cases.parse_case("n12_224_fgsm", None).batch_size == 16
    assert cases.parse_case("n12_224_trades10", None).batch_size == 4
    assert cases.parse_case("n12_224_trades10", 3).batch_size == 3
