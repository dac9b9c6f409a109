import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robustvit.data.sources import Source, open_source
from tests.data.conftest import encode, smooth_image


def _bytes(source: Source) -> list[bytes]:
    return [np.asarray(source[i]["image"]).tobytes() for i in range(len(source))]


def _write_images(*files: Path) -> None:
    for i, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(smooth_image(8, 8, seed=i), "PNG"))


def test_digits_are_real_enlarged_and_balanced() -> None:
    train, test = open_source("digits", "train"), open_source("digits", "test")
    assert (len(train), len(test), train.num_classes) == (1437, 360, 10)
    assert isinstance(train, Source)
    assert train[0]["image"].shape == (32, 32, 3)
    assert train[0]["image"].max() > 200
    counts = np.bincount([test[i]["label"] for i in range(len(test))], minlength=10)
    assert counts.min() >= 25  # of 36 expected
    assert test.describe(17) == "digits test example 17"


def test_digits_enlargement_can_be_undone() -> None:
    from sklearn.datasets import load_digits

    scans = {scan.astype(np.uint8).tobytes() for scan in load_digits().images}
    source = open_source("digits", "train[:50]")
    for i in range(len(source)):
        # The mean of a 4x4 block is near its scan's value; bicubic overshoots a little.
        blocks = source[i]["image"][..., 0].reshape(8, 4, 8, 4).mean((1, 3)) * 16 / 255
        nearest = min(
            np.abs(np.frombuffer(s, np.uint8).reshape(8, 8) - blocks).mean()
            for s in scans
        )
        assert nearest < 1.0


@pytest.mark.parametrize(
    ("split", "start", "stop"),
    [
        ("test", 0, 360),
        ("test[:100]", 0, 100),
        ("test[100:]", 100, 360),
        ("test[:90%]", 0, 324),
        ("test[-60:]", 300, 360),
        ("test[25%:75%]", 90, 270),
    ],
)
def test_digits_parts(split: str, start: int, stop: int) -> None:
    whole = _bytes(open_source("digits", "test"))
    assert _bytes(open_source("digits", split)) == whole[start:stop]


def test_parts_can_be_added() -> None:
    both = open_source("digits", "test[:10]+train[:5]")
    test, train = open_source("digits", "test"), open_source("digits", "train")
    assert _bytes(both) == _bytes(test)[:10] + _bytes(train)[:5]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tset", r"digits has no split 'tset'; it has train \(1,437 examples\), test"),
        ("test[:5000]", r"no split 'test\[:5000\]'; it has .*test \(360 examples\)"),
        ("test[:x]", r"no split 'test\[:x\]'"),
        ("test[", r"no split 'test\['"),
        ("test[:0]", "selects no example"),
    ],
)
def test_wrong_split(split: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source("digits", split)


def test_folder_without_splits(photos: Path) -> None:
    source = open_source(f"folder:{photos}", "train")
    assert len(source) == 18
    assert source.class_names == ("cats", "dogs", "eels")
    for i in range(len(source)):
        file = Path(source.describe(i).removeprefix("folder image "))
        assert file.read_bytes() == source[i]["image"]
        assert source.class_names[source[i]["label"]] == file.parent.name


def test_folder_parts_partition_and_are_not_sorted_by_class(photos: Path) -> None:
    whole = open_source(f"folder:{photos}", "train")
    first = open_source(f"folder:{photos}", "train[:50%]")
    rest = open_source(f"folder:{photos}", "train[50%:]")
    assert _bytes(first) + _bytes(rest) == _bytes(whole)
    assert {first[i]["label"] for i in range(len(first))} == {0, 1, 2}


def test_folder_with_splits_labels_by_the_training_classes(tmp_path: Path) -> None:
    train = [tmp_path / "train" / name / "0.png" for name in ("ant", "bee", "cow")]
    _write_images(*train, tmp_path / "val" / "cow" / "0.png")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "ant" / "._0.png").write_text("resource fork")
    assert len(open_source(f"folder:{tmp_path}", "train")) == 3
    val = open_source(f"folder:{tmp_path}", "val")
    assert val.class_names == ("ant", "bee", "cow")
    assert [val[i]["label"] for i in range(len(val))] == [2]


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (None, "train", "missing is not a directory"),
        ([], "train", "got an empty folder, wanted one directory per class"),
        (["0.png", "1.png"], "train", "got images directly in it, wanted one dir"),
        (["cat/0.png"], "train", r"1 class directories \['cat'\], wanted at least 2"),
        (["train/0.png", "val/1.png"], "train", "images directly in it"),
        (["cat/a.txt", "dog/b.txt"], "train", "has no image in its class directories"),
        (
            ["train/a/0.png", "train/b/1.png", "val/a/2.png", "val/z/3.png"],
            "val",
            r"classes \['z'\] that .*train does not have",
        ),
        (
            ["train/a/0.png", "train/b/1.png", "val/a/2.png"],
            "test",
            r"no split 'test'; it has train \(2 examples\), val \(1 examples\)",
        ),
        (["a/0.png", "b/1.png"], "test", r"no split 'test'; it has train \(2 examples"),
    ],
)
def test_folder_errors(
    tmp_path: Path, files: list[str] | None, split: str, message: str
) -> None:
    root = tmp_path / ("missing" if files is None else "there")
    if files is not None:
        root.mkdir()
        _write_images(*(root / file for file in files))
    with pytest.raises(ValueError, match=message):
        open_source(f"folder:{root}", split)


def test_sources_pickle(photos: Path) -> None:
    for name in ("digits", f"folder:{photos}"):
        source = open_source(name, "train[:9]")
        assert _bytes(pickle.loads(pickle.dumps(source))) == _bytes(source)


def test_opening_imports_no_tensorflow_and_no_grain() -> None:
    code = (
        "import sys; from robustvit.data.folders import open_folder; "
        "from robustvit.data import prepared, splits, transforms; "
        "splits.select('a[:1]', {'a': 2}, dataset='x'); "
        "print([m for m in ('tensorflow', 'grain', 'sklearn') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
