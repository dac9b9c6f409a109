"""`robustvit data prepare` and `data check`, and configs that use what they made."""

from pathlib import Path

import numpy as np
import pytest

from robustvit import cli_data, runs
from robustvit.cli import main
from robustvit.config_files import load_config
from robustvit.data import imagenet, robustbench
from tests.data.imagenet_files import photo
from tests.data.test_prepare import tfrecord_copy
from tests.small_run import QUICKSTART, SMALL, train_arguments


@pytest.fixture(scope="module")
def imagenet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image of each of the 1,000 classes, and 30 without class folders."""
    root = tmp_path_factory.mktemp("imagenet")
    data = photo(0)
    for name in imagenet.wnids():
        folder = root / "train" / name
        folder.mkdir(parents=True)
        (folder / f"{name}_1.JPEG").write_bytes(data)
    (root / "val").mkdir()
    known = sorted(robustbench.image_ids()[:30], key=lambda id_: id_.split("/")[1])
    for id_ in known:
        (root / "val" / id_.split("/")[1]).write_bytes(data)
    (root / "val.txt").write_text("\n".join(id_.split("/")[0] for id_ in known))
    return root


def test_imagenet_from_its_folder_to_a_model(
    imagenet_folder: Path, tmp_path: Path, capsys
) -> None:
    out, labels = str(tmp_path / "out"), str(imagenet_folder / "val.txt")
    command = ["data", "prepare", "--from", str(imagenet_folder), "--data-dir", out]
    assert main(command) == 2
    assert "30 images without classes; wanted --val-labels" in capsys.readouterr().err
    assert main([*command, "--val-labels", labels]) == 0
    printed = capsys.readouterr().out
    assert "train: 1,000 images, 1 shards\n  ImageNet has 1,281,167" in printed
    assert "1,030 images to " in printed and "less than a minute" in printed
    assert "is complete: 1,030 images, counts and labels are right" in printed
    assert main([*command, "--val-labels", labels]) == 0  # nothing left to do
    for name, count in (("imagenet2012", "1,000"), ("imagenet100", "100")):
        assert main(["data", "check", "--name", name, "--data-dir", out]) == 0
        assert f"train: {count} examples" in capsys.readouterr().out
    (imagenet_folder / "train" / "n02500267").rename(imagenet_folder / "elsewhere")
    assert main([*command, "--val-labels", labels]) == 2
    assert "train lacks 1 of 1,000 classes: n02500267" in capsys.readouterr().err


def test_faults_are_told_by_the_exit_code(tmp_path: Path, capsys) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(3):
            data = photo(i)[:-40] if i == 2 else photo(i)
            (tmp_path / "in" / name / f"{i}.jpg").write_bytes(data)
    prepare = ["data", "prepare", "--from", str(tmp_path / "in"), "--data-dir",
               str(tmp_path / "out")]  # fmt: skip
    assert main(prepare) == 2
    error = capsys.readouterr().err
    assert "lacks 1,000 of 1,000 classes" in error and "give --name)" in error
    assert main([*prepare, "--name", "pets"]) == 0
    check = ["data", "check", "--name", "pets", "--data-dir", str(tmp_path / "out")]
    capsys.readouterr()
    assert main([*check, "--decode"]) == 1
    printed = capsys.readouterr().out
    assert "(cats/2.jpg) cannot be decoded" in printed and "2 faults" in printed
    assert main([*check, "--split", "test"]) == 2
    assert "has no split 'test'; it has train" in capsys.readouterr().err
    assert main(["data", "check", "--name", "dog", "--data-dir", "/nowhere"]) == 2


def test_tfrecords_say_all_themselves(tmp_path: Path, capsys) -> None:
    _, theirs = tfrecord_copy(tmp_path)
    out = str(tmp_path / "copy")
    command = ["data", "prepare", "--from", str(theirs), "--data-dir", out]
    assert main([*command, "--name", "mine"]) == 2
    assert "--name is not for TFRecords, which say it" in capsys.readouterr().err
    assert main(command) == 0
    assert main(["data", "check", "--name", "imagenet2012", "--data-dir", out]) == 0
    assert "validation: 7 examples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "less than a minute"), (240, "about 4 min"), (7810, "about 2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert cli_data.duration(float(seconds)) == text


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    """120 generated digits; the class is the brightness."""
    labels = np.repeat(np.arange(10), 12)
    images = np.zeros((120, 32, 32, 3), np.uint8) + labels[:, None, None, None] * 25
    (tmp_path / "ddpm.bin").write_bytes(images.astype(np.uint8).tobytes())
    np.save(tmp_path / "ddpm.npy", labels)
    return tmp_path / "ddpm.bin"


def _mixed(generated: Path, ratio: float) -> list[str]:
    return [f"--config.data.mix.name=synthetic:{generated}",
            f"--config.data.mix.ratio={ratio}"]  # fmt: skip


def test_a_config_mixes(generated: Path) -> None:
    c = runs.resolve(load_config(QUICKSTART, [*SMALL, *_mixed(generated, 0.25)]))

    def data(**changes):
        c.data.mix.update(changes)
        return runs.build_data(c)

    assert data(name="").steps_per_epoch == 8
    mixed = data(name=f"synthetic:{generated}")
    assert mixed.steps_per_epoch == min(256 // 24, 120 // 8)
    batch = next(mixed.train(3))
    assert (batch["index"] >= 256).sum() == 8
    np.testing.assert_array_equal(batch["index"], next(mixed.train(3))["index"])
    assert data(ratio=0.0).steps_per_epoch == 8
    with pytest.raises(ValueError, match=r"got ratio=1.5 of the mix"):
        data(ratio=1.5)
    np.save(generated.with_suffix(".npy"), np.repeat(np.arange(12), 10))
    with pytest.raises(ValueError, match="have 12 classes, the real ones 10"):
        data(ratio=0.25)
    c.data.repeats = 3
    with pytest.raises(ValueError, match=r"data.repeats=3 does not go with data.mix"):
        data()


@pytest.mark.slow
def test_a_mixed_training_runs(generated: Path, tmp_path: Path) -> None:
    extra = [*_mixed(generated, 0.25), "--config.epochs=1"]
    assert main(train_arguments(tmp_path / "run", *extra)) == 0
