"""ImageNet-100 and other views on some classes, and the labels that they need."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from robustvit.data import folders, imagenet, images, labels, prepared, subsets
from robustvit.data.sources import open_source
from tests.data import tfds_copies as copies

# The recipe's list (threefry, not partitionable), written down before this code.
FIRST = (2, 12, 21, 29, 33, 43, 45, 47, 61, 68)
FIRST_WNIDS = ["n01484850", "n01532829", "n01608432", "n01632777", "n01664065"]
CLASSES = ("n01", "n03")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "robustvit" / "labels"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return copies.prepare(copies.Imagenet, tmp_path_factory.mktemp("imagenet"))


def _open(tiny, split):
    def whole(part):
        return prepared.open_tfds("imagenet2012", part, data_dir=tiny)

    return subsets.open_subset("two", split, whole, CLASSES)


def _seen(source):
    """(colour of the image, label) of every example."""
    raws = [source[i] for i in range(len(source))]
    return [(int(images.decode(r["image"])[0, 0, 0]), r["label"]) for r in raws]


def test_the_100_classes_are_the_recipes():
    wnids, chosen = imagenet.wnids(), imagenet.wnids_of_100()
    assert len(wnids) == 1000 and len(chosen) == 100 == len(set(chosen))
    assert list(wnids) == sorted(wnids) and list(chosen) == sorted(chosen)
    assert tuple(wnids.index(name) for name in chosen[:10]) == FIRST
    assert list(chosen[:5]) == FIRST_WNIDS
    assert wnids.index(chosen[-1]) == 961


def test_a_view_has_its_classes_and_new_labels(tiny: str) -> None:
    source = _open(tiny, "validation")
    wanted = {
        copies.number(id_): CLASSES.index(id_.split("/")[0])
        for id_ in copies.VALIDATION
        if id_.split("/")[0] in CLASSES
    }
    assert source.class_names == CLASSES and source.num_classes == 2
    assert dict(_seen(source)) == wanted and len(source) == len(wanted) == 4
    assert "imagenet2012/5.1.0 validation example" in source.describe(0)


def test_parts_are_of_the_subset(tiny: str) -> None:
    whole = _seen(_open(tiny, "validation"))
    parts = [_seen(_open(tiny, f"validation[{p}]")) for p in (":50%", "50%:")]
    assert [len(part) for part in parts] == [2, 2]
    assert parts[0] + parts[1] == whole
    assert _seen(_open(tiny, "validation[3:]+validation[:1]")) == [whole[3], whole[0]]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", r"no split 'train'; it has validation \(12 examples\)"),
        ("validation[9:]", r"no split .*; it has validation \(4 examples\)"),
        ("validation[", "has no split"),
    ],
)
def test_bad_splits(tiny: str, split: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _open(tiny, split)


def test_classes_that_are_not_there(tiny: str) -> None:
    with pytest.raises(ValueError, match="lacks 100 of 100 classes: n01484850, n0153"):
        open_source("imagenet100", "validation", data_dir=tiny)


def test_labels_are_read_once(tiny: str, cache: Path, monkeypatch) -> None:
    source = prepared.open_tfds("imagenet2012", "validation", data_dir=tiny)
    wanted = [source[i]["label"] for i in range(len(source))]
    assert labels.labels_of(source).tolist() == wanted
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(labels, "_scan", None)  # not called again
    assert labels.labels_of(source).tolist() == wanted


def test_labels_of_a_copy_that_was_replaced_are_read_again(
    tiny: str, tmp_path: Path, cache: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    source = prepared.open_tfds(
        "imagenet2012", "validation", data_dir=str(tmp_path / "copy")
    )
    labels.labels_of(source)
    os.utime(Path(source.folder) / "dataset_info.json", (1, 1))
    labels.labels_of(source)
    assert len(list(cache.iterdir())) == 2


def test_labels_beside_the_records_are_believed(tiny: str, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    source = prepared.open_tfds(
        "imagenet2012", "validation", data_dir=str(tmp_path / "copy")
    )
    file = labels.file_beside(source.folder, "validation")
    labels.write(file, np.full(12, 2, np.int32))
    assert labels.labels_of(source).tolist() == [2] * 12
    labels.write(file, np.full(11, 2, np.int32))  # of another copy
    assert len(set(labels.labels_of(source).tolist())) == 3


def test_a_folder_has_views_too(photos: Path) -> None:
    source = subsets.open_subset(
        "pets", "train", lambda part: folders.open_folder(str(photos), part), ["eels"]
    )
    assert len(source) == 4 and {source[i]["label"] for i in range(4)} == {0}
    assert all("/eels/" in source.describe(i) for i in range(4))
    with pytest.raises(ValueError, match=r"folder:.* lacks 100 of 100 classes"):
        open_source(f"imagenet100:folder:{photos}", "train")


def test_the_real_sample(tfds_dir: str) -> None:
    source = open_source("imagenet100", "train+validation", data_dir=tfds_dir)
    assert len(source) == 100  # one photo of each class
    assert sorted(source[i]["label"] for i in range(100)) == list(range(100))
    whole = open_source("imagenet2012:5.1.0", "train", data_dir=tfds_dir)
    first = source[0]
    names = {
        whole[i]["image"]: whole.class_names[whole[i]["label"]] for i in range(750)
    }
    assert names[first["image"]] == source.class_names[first["label"]]
