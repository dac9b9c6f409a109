"""The commands as a user types them, in this process."""

import json
import re

import jax
import numpy as np
import pytest

import robustvit as rv
from robustvit.cli import main
from robustvit.runs import open_run
from tests.small_run import QUICKSTART, REPO, records, train_arguments


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "small"
    assert main(train_arguments(workdir)) == 0
    return workdir


def test_a_run_leaves_everything_behind(finished):
    for name in ("report.png", "curves.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    report = json.loads((finished / "report.json").read_text())
    assert report["num_examples"] == 40 and report["split"] == "test[:40]"
    assert report["threat"]["eps"] == "32/255"
    assert 0 <= report["robust_accuracy"] <= report["clean_accuracy"] <= 1
    assert json.loads((finished / "config.json").read_text())["epochs"] == 2


def test_metrics_tell_the_story_of_the_run(finished):
    history = records(finished)
    validated = [r["step"] for r in history if "val/loss" in r]
    assert validated == [8, 16]  # 256 examples in batches of 32, twice
    logged = [r for r in history if "train/loss" in r]
    assert [r["step"] for r in logged] == [1, 2, 4, 6, 8, 10, 12, 14, 16]
    eps = [r["train/eps"] for r in logged]  # a ramp over ten epochs, from 0
    assert eps == pytest.approx([0.0] * 5 + [32 / 255 / 10] * 4)
    assert all({"train/robust_accuracy", "train/lr"} <= set(r) for r in logged)
    assert all(r["images_per_second"] > 0 and 0 < r["mfu"] < 1 for r in logged[1:])


def test_a_finished_run_is_not_done_again(finished, capsys):
    before = (finished / "report.json").stat().st_mtime_ns
    assert main(train_arguments(finished)) == 0
    assert "finished before" in capsys.readouterr().err
    assert (finished / "report.json").stat().st_mtime_ns == before


def test_loaded_run_gives_the_reported_accuracy(finished):
    from robustvit.data.sources import open_source

    model, variables = rv.load_run(str(finished))
    source = open_source("digits", "test[:40]")
    images = np.stack([e["image"] for e in (source[i] for i in range(40))])
    labels = np.array([source[i]["label"] for i in range(40)])
    forward = rv.logits_fn(model, variables)
    logits = jax.jit(forward)(images.astype(np.float32) / 255)
    report = json.loads((finished / "report.json").read_text())
    accuracy = np.mean(np.asarray(logits).argmax(-1) == labels)
    assert accuracy == pytest.approx(report["clean_accuracy"])


@pytest.mark.parametrize(
    ("flags", "name", "attacks"),
    [
        (["--attack", "clean"], "report-clean.json", {}),
        (["--attack", "fgsm", "--eps", "4/255"], "report-fgsm-linf-4_255.json",
         {"fgsm": {"steps": 1, "step_size": 4 / 255}}),
        (["--norm", "l2", "--eps", "0.5", "--steps", "3", "--restarts", "2"],
         "report-pgd-l2-0.5.json", {"pgd-3": {"steps": 3, "step_size": 2.5 * 0.5 / 3}}),
    ],
)  # fmt: skip
def test_eval_writes_a_report_named_after_the_question(finished, flags, name, attacks):
    assert (
        main(["eval", "--workdir", str(finished), "--split", "test[:20]", *flags]) == 0
    )
    report = json.loads((finished / name).read_text())
    assert report["num_examples"] == 20
    for key, numbers in attacks.items():
        found = report["attacks"][key]["attack"]
        assert {k: found[k] for k in numbers} == pytest.approx(numbers)
    assert (finished / name).with_suffix(".png").exists()


def test_checkpoints_are_chosen_by_step_latest_or_best(finished):
    history = {r["step"]: r.get("val/robust_accuracy") for r in records(finished)}
    best = max((8, 16), key=lambda s: (history[s], s))
    assert open_run(str(finished), "best")[3] == best
    assert open_run(str(finished), "latest")[3] == 16
    assert open_run(str(finished), 8)[3] == 8
    with pytest.raises(
        ValueError, match="no checkpoint 7: give best, latest or one of"
    ):
        open_run(str(finished), 7)


def test_a_folder_of_another_run_is_refused_and_left_alone(finished, capsys):
    before = (finished / "config.json").read_text()
    arguments = train_arguments(finished, "--config.optim.lr=0.5", "--config.seed=1")
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "holds a run of another config" in message
    assert "optim.lr: 0.002 in the folder, 0.5 now" in message
    assert "seed: 42 in the folder, 1 now" in message
    assert (finished / "config.json").read_text() == before


def test_diverging_stops_with_the_steps_and_keeps_the_last_good_checkpoint(
    tmp_path, capsys
):
    arguments = train_arguments(
        tmp_path,
        "--config.optim.lr=1e30",
        "--config.optim.name=sgd",
        "--config.optim.schedule.args.warmup_lr=0.0",
        "--config.optim.schedule.args.warmup_epochs=1",
    )
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert "diverged: loss was not finite at step" in message
    assert open_run(str(tmp_path), "latest")[3] == 8  # rate 0 for the first epoch


BAD = [
    (["--config.epoch=3"], "--config.epoch: there is no key 'epoch'.*epochs"),
    (["--config.epochs=many"], "--config.epochs=many: invalid literal"),
    (["--config.optim.lr=big"], "--config.optim.lr=big"),
    (["--config.model.name=xcit_nan_12_p8_32"], "did you mean 'xcit_nano_12_p8_32'"),
    (["--config.objective.name=trade"], "unknown objective 'trade': did you mean 'tra"),
    (["--config.objective.name=trades"], "'trades' has no argument 'attack_loss'"),
    (["--config.data.name=cifar11"], "cifar11"),
    (["--config.data.train_split=training"], "training"),
    (["--config.data.test_split=tset"], "tset"),
    (["--config.threat.eps=8"], "did you mean '8/255'"),
    (["--config.threat.norm=l3"], "'l3' is not one of linf, l2, l1"),
    (["--config.attack.args.steps=0"], "at least 1 step"),
    (["--config.data.batch_size=30"], "batch_size=30 must be divisible by the 4 dev"),
    (["--config.data.batch_size=512"], r"batch_size=512, wanted it in \[1, 256\]"),
    (["--config.model.args.num_classes=4"], "num_classes=4, but digits has labels up"),
    (
        ["--config.model.args.bn_group=5"],
        "batch_size=32 is not a multiple of model.args.bn_group=5",
    ),
    (["--config.model.args.dtype=float8"], "'float8' is not one of float32, bfloat16"),
    (["--config.optim.schedule.name=linear"], "unknown schedule 'linear'"),
    (["--config.epochs=0"], "epochs=0 must be at least 1"),
    (["--config.trainable=('hed',)"], "'hed' matches no parameter"),
    (["--config.log.tensorboard=True"], "needs tensorboardX: pip install"),
    (["--workdir", "/proc/nowhere"], "cannot write to workdir /proc/nowhere"),
]


@pytest.mark.parametrize(("extra", "message"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_is_told_before_any_work(tmp_path, capsys, extra, message):
    assert main(train_arguments(tmp_path / "run", *extra)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len(error.split("robustvit train: ")) == 2
    assert re.search(message, error), error
    assert not (tmp_path / "run" / "checkpoints").exists() or not any(
        (tmp_path / "run" / "checkpoints").iterdir()
    )


def test_full_disk_is_told_before_training(tmp_path, capsys, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert main(train_arguments(tmp_path / "run")) == 2
    assert "has 0.0 GB left, and the checkpoints" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "no.py", "--workdir", "x"], "no config file no.py"),
        (["train", "--config", QUICKSTART + ":quick", "--workdir", "x"],
         "variant 'quick' is unknown; there are adversarial or standard"),
        (["eval", "--workdir", "/nowhere"], "no checkpoint in /nowhere"),
        (["eval", "--workdir", "{run}", "--eps", "8"], "did you mean '8/255'"),
        (["eval", "--workdir", "{run}", "--split", "tset"], "tset"),
        (["eval", "--workdir", "{run}", "--loss", "ce"], "'ce' is not one of"),
        (["eval", "--workdir", "{run}", "--checkpoint", "first"], "give best, latest"),
        (["eval", "--workdir", "{run}", "--steps", "0"], "at least 1 step"),
    ],
)  # fmt: skip
def test_bad_arguments_of_commands(finished, capsys, arguments, message):
    assert main([a.replace("{run}", str(finished)) for a in arguments]) == 2
    assert message in capsys.readouterr().err


def test_unknown_flags_are_refused():
    for arguments in (["eval", "--workdir", "x", "--stepz", "3"], ["fly"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_config_shows_what_differs_from_the_defaults(capsys):
    flags = ["--config.optim.lr=0.25"]
    assert main(["config", "--config", QUICKSTART + ":standard", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    line = next(x for x in lines if x.startswith("optim.lr "))
    assert "0.25 (float)  <- default 0.0005" in line
    line = next(x for x in lines if x.startswith("model.args.num_classes "))
    assert "10 (int)  <- default 0" in line  # worked out from the dataset
    assert any(x.startswith("seed") and x.endswith("42 (int)") for x in lines)
    assert any(
        "objective.args.attack_bn" in x and "only in the def" in x for x in lines
    )


def test_config_is_shown_even_where_its_data_are_not(capsys, tmp_path):
    imagenet = str(REPO / "configs" / "imagenet_xcit_adv.py")
    assert main(["config", "--config", imagenet, f"--config.data.dir={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "'auto' (str)" in text and "cannot be resolved here: " in text


def test_doctor_finds_this_machine_healthy(capsys, tmp_path):
    assert main(["doctor", "--workdir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for word in ("devices", "collectives", "disk", "datasets", "images/s", "4 x cpu"):
        assert word in text
    assert "!!" not in text


def test_doctor_says_what_is_broken(capsys, tmp_path):
    assert main(["doctor", "--dataset", "cifar11", "--data-dir", str(tmp_path)]) == 1
    assert "!!  input pipeline" in capsys.readouterr().out


def test_help_lists_the_commands_and_teaches(capsys):
    for arguments, words in (
        (["--help"], ("train", "eval", "config", "doctor", "configs/quickstart.py")),
        (
            ["train", "--help"],
            ("--config.threat.eps=4/255", "goes on where it stopped"),
        ),
        (["eval", "--help"], ("--restarts", "8/255", "default")),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        assert all(word in text for word in words)
