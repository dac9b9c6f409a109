"""What `robustvit data check` finds."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from robustvit.data import examples, originals, plans, prepared
from robustvit.data.check import check_split
from robustvit.data.examples import Encoding
from robustvit.data.prepare import prepare
from tests.data import imagenet_files as files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound dataset of 20 and 7 images, in shards of 6."""
    found = originals.list_folder(files.write_folder(tmp_path / "in", flat=False))
    plan = plans.of_originals(found, "mine", Encoding(), shard_size=6)
    return prepare(plan, tmp_path / "out")


def _check(folder, split="train", **options):
    return check_split("mine", split, data_dir=str(folder.parents[1]), **options)


def test_nothing_is_wrong(folder: Path) -> None:
    found = _check(folder, decode_all=True)
    assert found.faults == () and (found.examples, found.decoded) == (20, 20)
    assert found.per_class.tolist() == list(files.COUNTS.values())
    lines = str(found).splitlines()
    assert lines[0].startswith("train: 20 examples, 20 of them decoded, ")
    assert lines[1] == "  3 classes of 5 (n02) to 8 (n03) examples"
    assert _check(folder, "val").examples == 7


def _rewrite(folder: Path, place: int, change) -> str:
    """Another record in the first shard; the name of its image."""
    from array_record.python.array_record_module import (
        ArrayRecordReader,
        ArrayRecordWriter,
    )

    shard = folder / "mine-train.array_record-00000-of-00004"
    reader = ArrayRecordReader(str(shard))
    records = [reader.read() for _ in range(reader.num_records())]
    reader.close()
    source = prepared.open_tfds("mine", "train", data_dir=str(folder.parents[1]))
    name, raw = source.file_name(place), source[place]
    records[place] = examples.pack(
        **{**{"image": raw["image"], "label": raw["label"]}, **change(raw)},
        file_name=name,
    )
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return name


def test_images_that_cannot_be_decoded_are_named(folder: Path) -> None:
    name = _rewrite(folder, 4, lambda raw: {"image": raw["image"][:-90]})
    (fault,) = _check(folder, decode_all=True).faults
    assert f"mine/1.0.0 train example 4 ({name}) cannot be decoded: " in fault
    assert f"  BAD: {fault}" in str(_check(folder, decode_all=True))


@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range_are_named(folder: Path, label: int) -> None:
    name = _rewrite(folder, 2, lambda raw: {"label": label})
    found = _check(folder)
    (fault,) = found.faults
    assert f"example 2 ({name}) has label {label}, wanted it in [0, 3)" in fault
    assert found.per_class.sum() == 19


def test_only_a_sample_is_decoded(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("robustvit.data.check.SAMPLE", 4)
    _rewrite(folder, 4, lambda raw: {"image": b"nothing"})
    found = _check(folder)
    assert (found.examples, found.decoded) == (20, 4) and not found.faults
    assert _check(folder, decode_all=True).faults


@pytest.mark.parametrize("what", ["missing", "cut", "count"])
def test_files_that_are_not_what_the_info_says(folder: Path, what: str) -> None:
    shard = folder / "mine-train.array_record-00001-of-00004"
    match what:
        case "missing":
            shard.unlink()
            message = "00001-of-00004 is missing"
        case "cut":
            os.truncate(shard, 70_000)
            message = "00001-of-00004 cannot be read: "
        case "count":
            info = json.loads((folder / "dataset_info.json").read_text())
            info["splits"][0]["shardLengths"][1] = "9"
            (folder / "dataset_info.json").write_text(json.dumps(info))
            message = "00001-of-00004 has 6 examples, and 9 by dataset_info.json"
    (fault,) = _check(folder).faults
    assert message in fault
    assert _check(folder, "val").faults == ()


def test_folders_and_generated_images_are_checked_too(photos: Path) -> None:
    (photos / "dogs" / "03.png").write_bytes(b"\x89PNG broken")
    found = check_split(f"folder:{photos}", "train", decode_all=True)
    (fault,) = found.faults
    assert "dogs/03.png cannot be decoded" in fault
    np.save(photos / "x_images.npy", np.zeros((4, 8, 8, 3), np.uint8))
    np.save(photos / "x_labels.npy", np.array([0, 1, 1, 1]))
    found = check_split(f"synthetic:{photos}/x_images.npy", "train")
    assert found.per_class.tolist() == [1, 3] and not found.faults
