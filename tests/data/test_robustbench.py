"""RobustBench's list, and its images in folders and in TFDS copies made here."""

import hashlib
import pickle

import pytest

from robustvit.data import images, robustbench
from robustvit.data.sources import Source, open_source
from tests.data.tfds_copies import (
    VALIDATION,
    Cifar,
    Imagenet,
    OtherCifar,
    number,
    picture,
    prepare,
)

# Not in the order of any directory, and of two of three classes only.
IDS = tuple(VALIDATION[i] for i in (6, 8, 1, 0))


def values(source):
    return [int(images.decode(source[i]["image"])[0, 0, 0]) for i in range(len(source))]


def labels(source):
    return [source[i]["label"] for i in range(len(source))]


def test_the_list_is_robustbenchs():
    ids = robustbench.image_ids()
    names = [id_.split("/")[1] for id_ in ids]
    assert len(ids) == len(set(names)) == robustbench.NUM_IMAGES["imagenet"] == 5000
    assert [number(id_) for id_ in ids[:4]] == [15253, 20685, 39611, 4059]
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == (
        "1ea7e48399f717bc8a0b0f453571795dcceb96e96f0688ba66166690ccd9526a"
    )
    assert len({id_.split("/")[0] for id_ in ids}) == 997  # of the 1000 classes
    assert all(id_.startswith("n0") or id_.startswith("n1") for id_ in ids)


@pytest.fixture
def short_list(monkeypatch):
    monkeypatch.setattr(robustbench, "image_ids", lambda: IDS)
    monkeypatch.setattr(robustbench, "NUM_CLASSES", 3)


@pytest.fixture
def folder(tmp_path, short_list):
    """ImageNet's validation set in a directory per class, twelve images large."""
    for id_ in VALIDATION:
        file = tmp_path / "val" / id_
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number(id_)))
    return tmp_path


@pytest.mark.parametrize(
    ("split", "chosen"),
    [("robustbench", slice(None)), ("robustbench[:2]", slice(2)),
     ("robustbench[50%:]", slice(2, 4))],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["folder", "tfds"])
def test_imagenet_is_listed_images_in_their_order(folder, kind, split, chosen):
    if kind == "folder":
        source = open_source(f"folder:{folder}", split)
    else:
        data_dir = prepare(Imagenet, folder / "tfds")
        source = open_source("imagenet2012:5.1.0", split, data_dir=data_dir)
    assert isinstance(source, Source)
    assert values(source) == [7, 9, 2, 1][chosen]
    assert labels(source) == [2, 0, 2, 0][chosen]  # n02 has none, but has a place
    assert source.class_names == ("n01", "n02", "n03") and source.num_classes == 3
    assert IDS[chosen][0].split("/")[1] in source.describe(0)
    assert values(pickle.loads(pickle.dumps(source))) == values(source)


def test_cifar_is_the_test_set_as_it_was_published(tmp_path):
    data_dir = prepare(Cifar, tmp_path)
    assert values(open_source("cifar10", "test", data_dir=data_dir)) != [*range(12)]
    source = open_source("cifar10", "robustbench", data_dir=data_dir)
    assert values(source) == [*range(12)]
    part = open_source("cifar10:3.0.2", "robustbench[:3]", data_dir=data_dir)
    assert values(part) == labels(part) == [0, 1, 2]


def test_a_cifar_that_forgot_its_order_says_so_where_that_matters(tmp_path):
    data_dir = prepare(OtherCifar, tmp_path)
    whole = open_source("cifar10", "robustbench", data_dir=data_dir)
    assert sorted(values(whole)) == [*range(12)]
    with pytest.warns(UserWarning, match="first ones are not RobustBench's"):
        part = open_source("cifar10", "robustbench[:3]", data_dir=data_dir)
    assert values(part) == values(whole)[:3]


def test_missing_images_are_named(folder):
    data_dir = prepare(Imagenet, folder / "tfds")
    more = (*IDS, *(f"n02/ILSVRC2012_val_{i:08}.JPEG" for i in range(90, 94)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustbench, "image_ids", lambda: more)
        for name in (f"folder:{folder}", "imagenet2012"):
            with pytest.raises(ValueError) as error:
                open_source(name, "robustbench", data_dir=data_dir)
            text = str(error.value)
            assert "lacks 4 of the 8 images that RobustBench uses" in text
            assert "val_00000092.JPEG, ..." in text and "00000093" not in text


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("digits", "robustbench", "RobustBench has no test images of 'digits', wanted"),
        ("imagenet2012", "robustbench_5k", "'robustbench_5k'; it has validation"),
        ("folder:{}", "robustbench[:5]", r"it has robustbench \(4 examples\)"),
        ("folder:{}/val", "robustbench", "val/val is not a directory, wanted val/<wn"),
    ],
)
def test_wrong_questions(folder, name, split, message):
    data_dir = prepare(Imagenet, folder / "tfds")
    with pytest.raises(ValueError, match=message):
        open_source(name.format(folder), split, data_dir=data_dir)


def test_a_class_too_few_would_shift_the_labels(folder, monkeypatch):
    data_dir = prepare(Imagenet, folder / "tfds")
    monkeypatch.setattr(robustbench, "NUM_CLASSES", 4)
    for name in (f"folder:{folder}", "imagenet2012"):
        with pytest.raises(ValueError, match="has 3 classes, wanted the 4 WordNet ids"):
            open_source(name, "robustbench", data_dir=data_dir)


def test_real_copies(tfds_dir):
    # A sample of ImageNet whose files have other names, and a CIFAR-10 with other ids.
    with pytest.raises(ValueError, match="lacks 5,000 of the 5,000 images"):
        open_source("imagenet2012", "robustbench", data_dir=tfds_dir)
    source = open_source("cifar10", "robustbench", data_dir=tfds_dir)
    assert len(source) == 10_000
    assert images.decode(source[0]["image"]).shape == (32, 32, 3)
