"""Folders, tars and TFRecords become a dataset, whatever happens on the way."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustvit.data import examples, labels, originals, plans, prepared, subsets
from robustvit.data.examples import Encoding
from robustvit.data.images import CorruptImageError, decode
from robustvit.data.prepare import prepare
from tests.data import imagenet_files as files
from tests.data.conftest import encode, smooth_image

SHARDS = 4 + 2  # of 6 images: 20 for training, 7 for validation


def _plan(source: Path, form: str, *, encoding=None, shard_size=6):
    list_ = {"folder": originals.list_folder, "tars": originals.list_tars}[form]
    labels_ = files.write_labels(source.parent)
    found = list_(source, names=files.CLASSES, labels=labels_)
    encoding = encoding or Encoding()
    return plans.of_originals(found, "imagenet2012", encoding, shard_size=shard_size)


def _source(root: Path, form: str) -> Path:
    write = {"folder": files.write_folder, "tars": files.write_tars}[form]
    return write(root / form)


def _contents(folder: Path) -> dict[str, bytes]:
    """All files but those that say where the data came from."""
    told = ("dataset_info.json", "preparation.json")
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name not in told}


@pytest.mark.parametrize("form", ["folder", "tars"])
def test_what_comes_out_is_what_went_in(tmp_path: Path, form: str) -> None:
    folder = prepare(_plan(_source(tmp_path, form), form), tmp_path / "out")
    assert folder == tmp_path / "out" / "imagenet2012" / "5.1.0"
    wanted = {
        "train": {f: (data, name) for name, f, data in files.train_files()},
        "validation": {
            f: (data, files.CLASSES[label])
            for label, (f, data) in zip(
                files.VAL_LABELS, files.val_files(), strict=True
            )
        },
    }
    for split, examples_ in wanted.items():
        source = prepared.open_tfds(
            "imagenet2012", split, data_dir=str(tmp_path / "out")
        )
        assert source.class_names == files.CLASSES and len(source) == len(examples_)
        got = {}
        for i in range(len(source)):
            raw = source[i]
            name = source.class_names[raw["label"]]
            got[source.file_name(i)] = (raw["image"], name)
        assert got == examples_
        found = labels.file_beside(source.folder, split)
        assert np.load(found).tolist() == [source[i]["label"] for i in range(len(got))]


def test_folders_and_tars_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [
        prepare(_plan(_source(tmp_path, form), form), tmp_path / f"out-{form}")
        for form in ("folder", "tars")
    ]
    first, second = map(_contents, folders)
    assert first == second and len(first) == SHARDS + 4


def test_val_in_class_folders(tmp_path: Path) -> None:
    root = files.write_folder(tmp_path / "by-class", flat=False)
    found = originals.list_folder(root, names=files.CLASSES)
    labels_ = sorted((i.name.split("/")[1], i.label) for i in found.splits["val"])
    assert [label for _, label in labels_] == list(files.VAL_LABELS)


def test_any_folder_of_class_folders(photos: Path, tmp_path_factory) -> None:
    out = tmp_path_factory.mktemp("out")
    found = originals.list_folder(photos)
    plan = plans.of_originals(found, "pets", Encoding(keep_png=True), shard_size=5)
    prepare(plan, out)
    source = prepared.open_tfds("pets", "train", data_dir=str(out))
    assert source.class_names == ("cats", "dogs", "eels")
    for i in range(18):
        file = source.file_name(i)  # a PNG stays one
        assert source[i]["image"] == (photos / file).read_bytes()
        assert file.split("/")[0] == source.class_names[source[i]["label"]]
    shuffled = [source[i]["label"] for i in range(18)]
    assert shuffled != sorted(shuffled)


def test_views_use_the_labels_that_lie_beside(tmp_path: Path, monkeypatch) -> None:
    prepare(_plan(_source(tmp_path, "tars"), "tars"), tmp_path / "out")
    monkeypatch.setattr(labels, "_scan", None)  # not called

    def whole(split):
        data_dir = str(tmp_path / "out")
        return prepared.open_tfds("imagenet2012", split, data_dir=data_dir)

    assert len(subsets.open_subset("some", "train", whole, ("n03", "n01"))) == 15


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [0, 3, 6, 7, 19, 26])
def test_a_stopped_preparation_continues(tmp_path: Path, after: int) -> None:
    source = _source(tmp_path, "folder")
    quiet = prepare(_plan(source, "folder"), tmp_path / "quiet")
    plan, out = _plan(source, "folder"), tmp_path / "out"
    read = iter(range(10**6))
    measured = len(plan)  # images are also read for the estimate

    def record(item):
        if next(read) >= measured + after:
            raise Stop
        return plan.record(item)

    stopped = plans.Plan(**{**vars(plan), "record": record})
    with pytest.raises(Stop):
        prepare(stopped, out, num_threads=1)
    with pytest.raises(ValueError, match=r"is not finished: \d of 6 shards are there"):
        prepared.open_tfds("imagenet2012", "train", data_dir=str(out))
    done = []
    prepare(plan, out, on_start=lambda estimate: done.append(estimate.done))
    assert done[0] == max(n for n in (0, 6, 12, 18, 20, 26) if n <= after)
    assert _contents(out / "imagenet2012" / "5.1.0") == _contents(quiet)
    # Once more: nothing to do.
    assert prepare(plan, out, on_start=lambda estimate: 1 / 0) == quiet.parents[2] / (
        "out/imagenet2012/5.1.0"
    )


KILLED = """
import os, signal, sys
from pathlib import Path
from robustvit.data import plans
from robustvit.data.prepare import prepare
from tests.data.test_prepare import _plan

plan = _plan(Path(sys.argv[1]), "folder")
def record(item, count=iter(range(99))):
    if next(count) == 27 + 15:  # 27 for the estimate
        os.kill(os.getpid(), signal.SIGKILL)
    return plan.record(item)
prepare(plans.Plan(**{**vars(plan), "record": record}), sys.argv[2], num_threads=1)
"""


def test_a_killed_preparation_continues(tmp_path: Path) -> None:
    source = _source(tmp_path, "folder")
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "out")]
    root = Path(__file__).parents[2]
    killed = subprocess.run(command, cwd=root, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    folder = tmp_path / "out" / "imagenet2012" / "5.1.0"
    assert len(list(folder.glob("*-of-?????"))) == 2
    plan = _plan(source, "folder")
    prepare(plan, tmp_path / "out")
    quiet = prepare(plan, tmp_path / "quiet")
    assert _contents(folder) == _contents(quiet)


def test_a_shard_that_was_damaged_meanwhile_is_written_again(tmp_path: Path) -> None:
    plan = _plan(_source(tmp_path, "folder"), "folder")
    quiet = _contents(prepare(plan, tmp_path / "out"))
    folder = tmp_path / "out" / "imagenet2012" / "5.1.0"
    (folder / "dataset_info.json").unlink()
    damaged = folder / plan.shards[1].file
    os.truncate(damaged, 50_000)
    prepare(plan, tmp_path / "out")
    assert _contents(folder) == quiet


def test_without_dataset_info_nothing_is_opened(tmp_path: Path) -> None:
    plan = _plan(_source(tmp_path, "tars"), "tars")
    folder = prepare(plan, tmp_path / "out")
    (folder / "dataset_info.json").unlink()
    with pytest.raises(ValueError, match="is not finished: 6 of 6 shards are there"):
        prepared.open_tfds("imagenet2012", "train", data_dir=str(tmp_path / "out"))
    prepare(plan, tmp_path / "out")
    prepared.open_tfds("imagenet2012", "train", data_dir=str(tmp_path / "out"))


def test_other_images_or_options_do_not_continue(tmp_path: Path) -> None:
    source, out = _source(tmp_path, "folder"), tmp_path / "out"
    prepare(_plan(source, "folder"), out)
    with pytest.raises(ValueError, match="of other images or with other options"):
        prepare(_plan(source, "folder", encoding=Encoding(quality=90)), out)
    (source / "train" / "n02" / "n02_0.JPEG").unlink()
    with pytest.raises(ValueError, match="of other images or with other options"):
        prepare(_plan(source, "folder"), out)
    other = tmp_path / "other" / "imagenet2012" / "5.1.0"
    other.mkdir(parents=True)
    (other / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match="is there already, and not by"):
        prepare(_plan(source, "folder"), tmp_path / "other")


def test_the_estimate(tmp_path: Path, monkeypatch) -> None:
    plan = _plan(_source(tmp_path, "folder"), "folder")
    told = []
    prepare(plan, tmp_path / "out", on_start=told.append)
    (estimate,) = told
    assert (estimate.done, estimate.left) == (0, 27)
    assert 0 < estimate.seconds < 60 and estimate.free > 0
    assert estimate.size == sum(item.size for s in plan.shards for item in s.items)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 10}))
    with pytest.raises(ValueError, match=r"GB are to be written and 0.0 GB are free"):
        prepare(plan, tmp_path / "full")


def _cmyk():
    return encode(smooth_image(12, 16), mode="CMYK")


@pytest.mark.parametrize(
    ("image", "encoding", "size"),
    [
        (files.photo(1), Encoding(), None),
        (_cmyk(), Encoding(), (16, 12)),
        (encode(smooth_image(12, 16), "PNG"), Encoding(), (16, 12)),
        (encode(smooth_image(12, 16), "PNG"), Encoding(keep_png=True), None),
        (encode(smooth_image(12, 16), "GIF"), Encoding(keep_png=True), (16, 12)),
        (encode(smooth_image(12, 16), mode="L"), Encoding(), None),
        (files.photo(1, 40, 80), Encoding(max_side=80), None),
        (files.photo(1, 40, 80), Encoding(max_side=20), (20, 10)),
        (files.photo(1, 80, 40), Encoding(max_side=20, quality=50), (10, 20)),
        (files.photo(1, 40, 80), Encoding(quality=50), (80, 40)),
        (encode(smooth_image(40, 80), "PNG"), Encoding(20, keep_png=True), (20, 10)),
    ],
)
def test_what_is_encoded_anew(image, encoding, size) -> None:
    stored = encoding(image)
    if size is None:
        assert stored == image
        return
    with Image.open(io.BytesIO(stored)) as opened:
        assert (opened.format, opened.mode, opened.size) == ("JPEG", "RGB", size)
    if not encoding.max_side and not encoding.quality:
        difference = decode(stored).astype(int) - decode(image)
        assert np.abs(difference).mean() < 2  # of 255; a JPEG of quality 100


@pytest.mark.parametrize("bad", [{"max_side": -1}, {"quality": 101}])
def test_bad_encodings(bad) -> None:
    with pytest.raises(ValueError, match=f"got {next(iter(bad))}="):
        Encoding(**bad)


def test_a_record_is_read_as_it_was_written() -> None:
    record = examples.pack(b"jpeg", label=7, file_name="a.JPEG")
    assert examples.label_in(record) == 7
    assert record == examples.pack(b"jpeg", label=7, file_name="a.JPEG")
    with pytest.raises(ValueError, match="a record has 0 labels 'kind', wanted 1"):
        examples.label_in(record, examples.Names(label="kind"))


def tfrecord_copy(tmp_path: Path) -> tuple[Path, Path]:
    """A prepared dataset, and one of TFRecords with the same records."""
    from array_record.python.array_record_module import ArrayRecordReader

    ours = prepare(_plan(_source(tmp_path, "tars"), "tars"), tmp_path / "ours")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for file in ours.iterdir():
        if "array_record" in file.name:
            reader = ArrayRecordReader(str(file))
            records = [reader.read() for _ in range(reader.num_records())]
            reader.close()
            new = file.name.replace("array_record", "tfrecord")
            files.write_tfrecords(theirs / new, records)
        elif file.suffix == ".txt" or file.name == "features.json":
            (theirs / file.name).write_bytes(file.read_bytes())
    info = json.loads((ours / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (theirs / "dataset_info.json").write_text(json.dumps(info))
    return ours, theirs


def test_tfrecords_are_copied_unchanged(tmp_path: Path) -> None:
    ours, theirs = tfrecord_copy(tmp_path)
    copy = prepare(plans.of_tfrecords(theirs, Encoding()), tmp_path / "copy")
    assert copy == tmp_path / "copy" / "imagenet2012" / "5.1.0"
    assert _contents(copy) == _contents(ours)
    source = prepared.open_tfds(
        "imagenet2012", "validation", data_dir=str(tmp_path / "copy")
    )
    assert len(source) == 7 and source.class_names == files.CLASSES
    small = plans.of_tfrecords(theirs, Encoding(max_side=8))
    folder = prepare(small, tmp_path / "small")
    source = prepared.open_tfds(
        "imagenet2012", "train", data_dir=str(folder.parents[1])
    )
    assert decode(source[3]["image"]).shape == (6, 8, 3)


def test_bad_tfrecords(tmp_path: Path) -> None:
    ours, theirs = tfrecord_copy(tmp_path)
    with pytest.raises(ValueError, match=r"is stored as .*, wanted tfrecord"):
        plans.of_tfrecords(ours, Encoding())
    (file,) = theirs.glob("*train.tfrecord-00001*")
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    with pytest.raises(
        ValueError, match=r"00001-of-00004 is cut off, or no file of TF"
    ):
        plans.of_tfrecords(theirs, Encoding())
    file.write_bytes(whole[: 16 + int.from_bytes(whole[:8], "little")])
    with pytest.raises(ValueError, match=r"has 1 records, and 6 by dataset_info.json"):
        plans.of_tfrecords(theirs, Encoding())


def _spoil(root: Path, what: str) -> None:
    train, val = root / "train", root / "val"
    match what:
        case "class":
            for file in (train / "n02").iterdir():
                file.unlink()
            (train / "n02").rmdir()
        case "stranger":
            (train / "n04").mkdir()
        case "empty":
            for file in (train / "n02").iterdir():
                file.unlink()
        case "count":
            (val / "ILSVRC2012_val_00000003.JPEG").unlink()
        case "devkit":
            text = "\n".join(str(label + 1) for label in files.VAL_LABELS)
            (root.parent / "val.txt").write_text(text)
        case "name":
            text = "\n".join(["n01"] * 6 + ["n09"])
            (root.parent / "val.txt").write_text(text)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("class", r"train lacks 1 of 3 classes: n02"),
        ("stranger", r"train has, beside the wanted ones, 1 of 3 classes: n04"),
        ("empty", r"n02 has no image"),
        ("count", r"val.txt has 7 labels for 6 images"),
        ("devkit", r"val.txt has label 3, wanted at most 2. If it is the devkit's"),
        ("name", r"val.txt, line 7: 'n09' is none of the classes"),
    ],
)
def test_bad_folders(tmp_path: Path, what: str, message: str) -> None:
    root = files.write_folder(tmp_path / "in")
    labels_ = files.write_labels(tmp_path)
    _spoil(root, what)
    with pytest.raises(ValueError, match=message):
        originals.list_folder(root, names=files.CLASSES, labels=labels_)


def test_labels_as_numbers_and_no_labels(tmp_path: Path) -> None:
    root = files.write_folder(tmp_path / "in")
    file = tmp_path / "numbers.txt"
    file.write_text(" ".join(map(str, files.VAL_LABELS)))
    found = originals.list_folder(root, labels=file)
    assert [i.label for i in found.splits["val"]] == list(files.VAL_LABELS)
    with pytest.raises(ValueError, match="7 images without classes; wanted --val-lab"):
        originals.list_folder(root)


def test_a_class_that_is_missing_in_val_is_named(tmp_path: Path) -> None:
    root = files.write_folder(tmp_path / "in", flat=False)
    (root / "val" / "n02").rename(root / "elsewhere")
    with pytest.raises(ValueError, match=r"val lacks 1 of 3 classes: n02"):
        originals.list_folder(root, names=files.CLASSES)


def test_bad_tars(tmp_path: Path) -> None:
    root = files.write_tars(tmp_path / "tars")
    with pytest.raises(ValueError, match="lacks 1 of 4 classes: n04"):
        originals.list_tars(root, names=(*files.CLASSES, "n04"))
    tar = root / originals.TRAIN_TAR
    os.truncate(tar, 20_000)
    with pytest.raises(ValueError, match=r"train.tar is cut off"):
        originals.list_tars(root, names=files.CLASSES)
    with pytest.raises(ValueError, match=r"has neither ILSVRC2012_img_train.tar nor"):
        originals.list_tars(tmp_path)


@pytest.mark.parametrize("data", [b"no image at all", b"\xff\xd8\xff nearly"])
def test_what_is_no_image_is_named(tmp_path: Path, data: bytes) -> None:
    root = _source(tmp_path, "folder")
    (root / "train" / "n02" / "n02_3.JPEG").write_bytes(data)
    with pytest.raises(CorruptImageError, match=r"n02_3.JPEG .* is no image"):
        prepare(_plan(root, "folder"), tmp_path / "out")


def test_a_bad_name(tmp_path: Path) -> None:
    found = originals.list_folder(files.write_folder(tmp_path, flat=False))
    with pytest.raises(ValueError, match="got the name 'My-Birds', wanted small"):
        plans.of_originals(found, "My-Birds", Encoding())
