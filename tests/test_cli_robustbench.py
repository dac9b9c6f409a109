"""`robustvit eval --protocol robustbench` as a user types it."""

import json
import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import robustvit as rv
from robustvit import runs
from robustvit.attacks.autoattack import VERSIONS
from robustvit.cli import main
from robustvit.config_files import load_config
from tests.data.tfds_copies import Cifar, prepare
from tests.small_run import QUICKSTART, SMALL

QUICK = {"apgd-ce": rv.APGD(steps=3), "square": rv.Square(queries=5)}


@pytest.fixture(scope="module")
def cifar_run(tmp_path_factory):
    """Fresh weights of a small model, as a run on a CIFAR-10 of a few images."""
    folder = tmp_path_factory.mktemp("cifar")
    flags = [
        *SMALL,
        "--config.data.name=cifar10",
        f"--config.data.dir={prepare(Cifar, folder / 'tfds')}",
        "--config.data.train_split=train",
        "--config.data.val_split=train[:8]",
        "--config.data.test_split=test",
        "--config.data.transform.name=cifar",
        "--config.data.batch_size=8",
        "--config.threat.eps=8/255",
        "--config.data.on_error=skip",
    ]
    model = runs.build_model(runs.resolve(load_config(QUICKSTART, flags)))
    variables = jax.jit(model.init)(
        jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)
    )
    rv.save_torch(model, variables, folder / "weights.safetensors")
    arguments = ["import-weights", "--config", QUICKSTART, *flags]
    weights = ["--weights", str(folder / "weights.safetensors")]
    assert main([*arguments, *weights, "--workdir", str(folder / "run")]) == 0
    return folder / "run"


def protocol(run, *flags):
    return main(["eval", "--workdir", str(run), "--protocol", "robustbench", *flags])


def test_the_protocol_from_end_to_end(cifar_run, capsys, monkeypatch):
    monkeypatch.setitem(VERSIONS, "standard", QUICK)
    (cifar_run / "info.json").write_text('{"name": "Mine", "additional_data": false}')
    flags = ("--examples", "4", "--model-info", str(cifar_run / "info.json"))
    assert protocol(cifar_run, *flags) == 0
    screen = capsys.readouterr().err

    start = cifar_run / "report-robustbench-4-linf-8_255"
    report = json.loads(start.with_suffix(".json").read_text())
    assert report["split"] == "robustbench[:4]" and report["num_examples"] == 4
    assert report["preprocessing"] == "Resize(32, bicubic), CenterCrop(32)"
    assert report["threat"]["eps"] == "8/255" and report["seed"] == 0
    entry = json.loads(start.with_suffix(".robustbench.json").read_text())
    assert (entry["name"], entry["dataset"], entry["eps"]) == (
        "Mine", "cifar10", "8/255",
    )  # fmt: skip
    assert entry["clean_acc"] == f"{100 * report['clean_accuracy']:.2f}"
    assert entry["autoattack_acc"] == f"{100 * report['reevaluated_accuracy']:.2f}"
    assert entry["footnote"] == "first 4 of 10,000 images"
    log = start.with_suffix(".log").read_text()
    assert log in screen and log.startswith("initial accuracy: ")
    assert "\nrobust accuracy after SQUARE: " in log

    before = (start.with_suffix(".state") / "state.npz").stat().st_mtime_ns
    # Goes on, with nothing left to do; flags that only repeat the protocol are fine.
    same = (
        "--attack autoattack --norm linf --eps 8/255 --split robustbench[:4] --seed 0"
    )
    assert protocol(cifar_run, *flags, *same.split()) == 0
    after = (start.with_suffix(".state") / "state.npz").stat().st_mtime_ns
    again = json.loads(start.with_suffix(".json").read_text())
    assert after == before and again["broken_by"] == report["broken_by"]


CONTRADICTIONS = [
    ("cifar10", "--eps 4/255", r"cifar10 in linf; leave out --eps 4/255 \(wanted 8/2"),
    ("cifar10", "--eps 8", "did you mean '8/255'"),
    ("cifar10", "--norm l2 --eps 8/255", r"in l2; leave out --eps 8/255 \(wanted 0.5"),
    ("cifar10", "--norm l1", "no l1 leaderboard for cifar10, only linf and l2"),
    ("imagenet2012", "--norm l2", "no l2 leaderboard for imagenet, only linf"),
    ("folder:/x", "--eps 8/255", r"imagenet in linf; .*\(wanted 4/255\)"),
    ("cifar10", "--attack pgd", r"--attack pgd \(wanted autoattack\)"),
    ("cifar10", "--version plus", r"--version plus \(wanted standard\)"),
    ("cifar10", "--split test", r"--split test \(wanted robustbench\)"),
    ("cifar10", "--seed 3 --steps 20", r"--seed 3 \(wanted 0\), --steps 20$"),
    ("cifar10", "--examples 10001", "got 10001 examples, wanted 1 to 10,000"),
    ("imagenet2012", "--examples 0", "got 0 examples, wanted 1 to 5,000"),
    ("digits", "", "RobustBench has no test images of 'digits'"),
    ("cifar100", "", r"at its own 32x32 pixels, .* Resize\(224, bicubic\)"),
    ("imagenet2012", "--model-info /nowhere.json", "/nowhere.json"),
]


@pytest.mark.parametrize(("dataset", "flags", "message"), CONTRADICTIONS)
def test_contradictions_are_told_before_any_work(
    monkeypatch, capsys, dataset, flags, message
):
    size = 32 if dataset == "cifar10" else 224
    data = {"name": dataset, "image_size": size, "crop_pct": 1.0}
    threat = {"norm": "linf", "eps": "2/255"}
    config = ConfigDict({"data": data, "threat": threat})
    monkeypatch.setattr(runs, "open_run", lambda *_: (None, None, config, 0))
    monkeypatch.setattr("robustvit.commands.evaluate_run", None)
    assert protocol("run", *flags.split()) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(message, error) and len(error.splitlines()) == 1, error


@pytest.mark.parametrize("flag", ["--examples=3", "--model-info=x.json"])
def test_flags_of_the_protocol_need_it(cifar_run, capsys, flag):
    assert main(["eval", "--workdir", str(cifar_run), flag]) == 2
    assert f"{flag.split('=')[0]} needs --protocol rob" in capsys.readouterr().err


def test_help_teaches_the_protocol(capsys):
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--workdir runs/s12 --protocol robustbench" in text
    assert "5,000 images of ImageNet (linf 4/255)" in text
