"""TFDS datasets: one made here on disk, and the real ones of the project."""

import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from robustvit.data import images
from robustvit.data.sources import open_source
from tests.data.conftest import encode


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Nine training and four test images; image i is all i, its class i % 3."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "photo": tfds.features.Image(encoding_format="png"),
            "mask": tfds.features.Image(encoding_format="png"),
            "kind": tfds.features.ClassLabel(names=["ring", "star", "wave"]),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("photo", "kind"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(9), "test": self._generate_examples(4)}

    def _generate_examples(self, count: int):
        for i in range(count):
            png = encode(np.full((8, 8, 3), i, np.uint8), "PNG")
            yield (
                i,
                {
                    "photo": io.BytesIO(png),
                    "mask": io.BytesIO(png),
                    "kind": i % 3,
                    "file_name": f"{i}.png",
                },
            )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("tfds"))
    TinyShapes(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.parametrize("name", ["tiny_shapes", "tiny_shapes:1.2.0"])
def test_reads_a_prepared_dataset(tiny: str, name: str) -> None:
    source = open_source(name, "train", data_dir=tiny)
    assert len(source) == 9
    assert source.class_names == ("ring", "star", "wave")
    values = []
    for i in range(9):
        value = int(images.decode(source[i]["image"])[0, 0, 0])
        assert source[i]["label"] == value % 3
        expected = f"tiny_shapes/1.2.0 train example {i} ({value}.png)"
        assert source.describe(i) == expected
        values.append(value)
    assert sorted(values) == list(range(9))
    part = pickle.loads(pickle.dumps(open_source(name, "train[3:4]", data_dir=tiny)))
    assert [part[i]["image"] for i in range(len(part))] == [source[3]["image"]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_shape", "unknown dataset 'tiny_shape', .*nearest: tiny_shapes"),
        ("digit", "nearest: .*digits"),
        ("cifar10", "is not prepared .*prepared in .*: tiny_shapes:1.2.0"),
        ("cifar10", "`tfds build cifar10 --file_format=array_record --data_dir="),
        ("tiny_shapes:7.0.0", "tiny_shapes:1.2.0"),
    ],
)
def test_a_dataset_that_is_not_there(tiny: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(name, "train", data_dir=tiny)


def test_unknown_split(tiny: str) -> None:
    with pytest.raises(ValueError, match=r"'val'; it has .*train \(9 examples\)"):
        open_source("tiny_shapes", "val", data_dir=tiny)


def test_nothing_prepared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prepared in .*missing: nothing"):
        open_source("cifar10", "train", data_dir=str(tmp_path / "missing"))


def test_a_tfrecord_copy_says_what_to_do(tiny: str, tmp_path: Path) -> None:
    folder = tmp_path / "tiny_shapes" / "1.2.0"
    shutil.copytree(Path(tiny) / "tiny_shapes" / "1.2.0", folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(
        json.dumps({**info, "fileFormat": "tfrecord"})
    )
    for file in folder.glob("*array_record*"):
        file.rename(folder / file.name.replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=r"as tfrecord, .* must be array_record"):
        open_source("tiny_shapes", "train", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "split", "size", "num_classes"),
    [
        ("cifar10", "test[:10%]", 1000, 10),
        ("caltech101:3.0.2", "train", 3060, 102),
        ("imagenet2012", "validation", 250, 1000),
    ],
)
def test_real_datasets(
    tfds_dir: str, name: str, split: str, size: int, num_classes: int
) -> None:
    source = open_source(name, split, data_dir=tfds_dir)
    assert (len(source), source.num_classes) == (size, num_classes)
    example = source[size - 1]
    assert 0 <= example["label"] < num_classes
    assert images.decode(example["image"]).ndim == 3
