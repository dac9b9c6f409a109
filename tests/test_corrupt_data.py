"""A folder of images, one of them cut short, through the whole `train` command."""

import contextlib
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from robustvit import runs
from robustvit.cli import main
from robustvit.config_files import load_config
from tests.small_run import QUICKSTART, train_arguments


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 8)):
        for name in ("blue", "red"):
            home = tmp_path / "images" / split / name
            home.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (40, 36, 3), np.uint8)
                pixels[..., 0 if name == "red" else 2] += 120
                Image.fromarray(pixels).save(home / f"{i}.jpg")
    return tmp_path / "images"


def arguments(folder, workdir, *extra):
    return train_arguments(
        workdir,
        f"--config.data.name=folder:{folder}",
        "--config.data.train_split=train",
        "--config.data.val_split=test",
        "--config.data.test_split=test",
        "--config.data.batch_size=16",
        *extra,
    )


def cut_short(path):
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[:200])


def test_corrupt_image_stops_training_with_its_name(folder, tmp_path, capsys):
    broken = folder / "train" / "red" / "7.jpg"
    cut_short(broken)
    everything = "--config.data.batch_size=80"  # so it is in the first batch
    assert main(arguments(folder, tmp_path / "run", everything)) == 2
    assert str(broken) in capsys.readouterr().err


def test_corrupt_image_is_counted_and_replaced(folder):
    cut_short(folder / "train" / "red" / "7.jpg")
    skip = ["--config.data.on_error=skip", "--config.data.batch_size=80"]
    overrides = arguments(folder, "unused", *skip)[5:]
    run = runs.build(load_config(QUICKSTART, overrides))
    with contextlib.closing(run.data.train(0)) as batches:
        batch = next(batches)
    assert batch["mask"].all() and len(set(batch["index"])) == 79
    assert run.data.skipped() >= 1  # prefetching may have met it again


def empty(folder):
    for image in folder.rglob("*.jpg"):
        image.unlink()


def one_class(folder):
    shutil.rmtree(folder / "train" / "red")


@pytest.mark.parametrize(
    ("spoil", "message"), [(empty, "images"), (one_class, "class")]
)
def test_useless_folders_are_told(folder, tmp_path, capsys, spoil, message):
    spoil(folder)
    assert main(arguments(folder, tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
