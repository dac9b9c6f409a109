"""`robustvit verify` as a user types it, on an honest report and on doctored ones."""

import json
import shutil

import pytest

from robustvit.cli import main
from tests.small_run import train_arguments


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training of four steps, with checkpoints at 2 and 4."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    arguments = train_arguments(workdir, "--config.data.train_split=train[:64]")
    assert main(arguments) == 0
    return workdir


@pytest.fixture
def verify(run, tmp_path, capsys):
    """Verify the run's report with some keys changed: exit code, and what was said."""

    def verify(*flags, **changes):
        saved = json.loads((run / "report.json").read_text()) | changes
        path = tmp_path / "report.json"
        path.write_text(json.dumps({k: v for k, v in saved.items() if v is not None}))
        code = main(["verify", str(path), "--seed", "1", "--examples", "8", *flags])
        said = capsys.readouterr()
        return code, said.out, said.err

    return verify


def test_the_report_of_a_training_is_trusted(verify, run, tmp_path):
    code, text, _ = verify()
    assert code == 0 and "TRUSTED" in text and "NOT" not in text
    for words in ("digits test[:40]", "linf eps 32/255", "PGD(steps=2", "seed 1"):
        assert words in text
    shutil.copytree(run / "checkpoints", tmp_path / "moved" / "checkpoints")
    assert verify("--workdir", str(tmp_path / "moved"), workdir="/nowhere")[0] == 0


def test_another_checkpoint_is_found(verify, run):
    best = json.loads((run / "report.json").read_text())["step"]
    code, text, _ = verify(step=6 - best)
    assert code == 1 and "NOT TRUSTED: model" in text


def test_another_dataset_is_found(verify):
    code, text, _ = verify(split="test[40:80]")
    assert code == 1 and "NOT TRUSTED: data" in text


def test_edited_numbers_are_found(verify):
    code, text, _ = verify(clean_accuracy=2.0)
    assert code == 1 and "clean_accuracy: 2.0 -> " in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workdir": "/nowhere"}, "which is not here: say where it is now with --work"),
        ({"step": 7}, "has no checkpoint 7"),
        ({"dataset": "cifar11"}, "cifar11"),
        ({"dataset": None, "seed": None}, "no report of `robustvit eval`: dataset, se"),
        ({"broken_by": [0.5]}, "broken_by must be whole numbers"),
        ({"attacks": {"pgd": {"steps": 2}}}, "an attack without a type"),
        ({"threat": {"norm": "linf"}}, "a number eps_float, got None"),
        ({"threat": {"norm": "l3", "eps_float": 0.1}}, "'l3' is not one of"),
    ],
    ids=str,
)
def test_bad_reports_are_one_clear_sentence(verify, changes, message):
    code, _, error = verify(**changes)
    assert code == 2 and message in error
    assert "Traceback" not in error and error.count("robustvit verify: ") == 1


def test_files_that_are_no_reports(tmp_path, capsys):
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "words.json").write_text("robust!")
    for name, message in (
        ("none.json", "there is no report "),
        ("list.json", "is no report of `robustvit eval`"),
        ("words.json", "is no JSON file"),
    ):
        assert main(["verify", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err


def test_help_says_what_is_compared(capsys):
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("every verdict must come out the same", "2 % of the", "--workdir"):
        assert words in text
