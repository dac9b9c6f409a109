"""TFDS datasets that were prepared on disk, as sources; no TensorFlow, no download.

    open_tfds("imagenet2012:5.1.0", "validation", data_dir="~/tensorflow_datasets")

The copy must be in array_record format, the one TFDS format with random access:
`tfds build imagenet2012 --file_format=array_record`, or `robustvit data prepare` out of
what is on the disk already.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robustvit.data import splits

# Features that say which file an example was made from, best first.
FILE_NAME_FEATURES = ("file_name", "image/file_name", "image/filename", "id")
# What `robustvit data prepare` puts into the folder of a dataset when it begins.
MARKER = "preparation.json"


@dataclass(frozen=True, eq=False)
class TfdsSource:
    """Undecoded examples of one split of a prepared dataset."""

    name: str  # cifar10/3.0.2
    split: str
    folder: str  # that holds its files
    records: Sequence[Mapping[str, Any]] = field(repr=False)
    image_feature: str
    label_feature: str
    class_names: tuple[str, ...] = field(repr=False)

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes)."""
        return len(self.class_names)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Encoded bytes and label of one example."""
        record = self.records[index]
        label = int(record[self.label_feature])
        return {"image": record[self.image_feature], "label": label}

    def file_name(self, index: int) -> str:
        """What an example was made from, or "" if the dataset does not say."""
        record = self.records[index]
        files = [record[name] for name in FILE_NAME_FEATURES if name in record]
        return files[0].decode() if files else ""

    def describe(self, index: int) -> str:
        """For example "cifar10/3.0.2 train example 17 (train_16399)"."""
        file = self.file_name(index)
        suffix = f" ({file})" if file else ""
        return f"{self.name} {self.split} example {index}{suffix}"


def open_tfds(name: str, split: str, *, data_dir: str | None = None) -> TfdsSource:
    """Opens a split of a dataset prepared in `data_dir`."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import constants

    data_dir = os.path.expanduser(data_dir or constants.DATA_DIR)
    builder = _find(name, data_dir)
    info = builder.info
    image, label = supervised_features(info)
    sizes = {key: part.num_examples for key, part in info.splits.items()}
    splits.select(split, sizes, dataset=f"{name} in {data_dir}")
    # Raw bytes for every image feature: a segmentation mask beside the photo would
    # otherwise be decoded for nothing.
    undecoded = {
        key: tfds.decode.SkipDecoding()
        for key, feature in info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    try:
        records = builder.as_data_source(split, decoders=undecoded)
    except NotImplementedError as error:
        raise ValueError(
            f"{name} in {data_dir} is stored as {info.file_format.value}, which has no "
            "random access; it must be array_record: "
            f"{_build_command(name, data_dir)}, or `robustvit data prepare --from "
            f"{info.data_dir} --data-dir NEW`"
        ) from error
    return TfdsSource(
        name=info.full_name,
        split=split,
        folder=str(info.data_dir),
        records=records,
        image_feature=image,
        label_feature=label,
        class_names=tuple(info.features[label].names),
    )


def shard_files(name: str, data_dir: str | None) -> dict[str, dict[str, int]]:
    """The files of every split, and how many examples each should have."""
    from tensorflow_datasets.core import constants

    splits_ = _find(
        name, os.path.expanduser(data_dir or constants.DATA_DIR)
    ).info.splits
    return {
        split: dict(zip(map(str, s.filepaths), s.shard_lengths, strict=True))
        for split, s in splits_.items()
    }


def _find(name: str, data_dir: str) -> Any:
    """The builder of a prepared dataset, from its files alone.

    Not `tfds.builder`: that runs the dataset's code, which may need TensorFlow, and
    looks only for the version that this code is at.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, read_only_builder

    try:
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    # The last: a preparation that was stopped between its last two files.
    except (
        tfds.core.DatasetNotFoundError, ValueError, dataset_info.DatasetInfoFileError
    ) as error:  # fmt: skip
        message = _unfinished(name, data_dir) or _not_found(name, data_dir)
        raise ValueError(message) from error


def _unfinished(name: str, data_dir: str) -> str:
    """What to do about a preparation that was stopped; "" if there is none."""
    from etils import epath  # data_dir may be a bucket

    root = epath.Path(data_dir) / name.split(":")[0]
    for marker in (*root.glob(f"*/{MARKER}"), *root.glob(f"*/*/{MARKER}")):
        folder = marker.parent
        if not (folder / "dataset_info.json").exists():
            wanted = json.loads(marker.read_text())["shards"]
            found = len(list(folder.glob("*.array_record-*-of-?????")))
            return (
                f"the preparation of {name!r} in {folder} is not finished: {found:,} "
                f"of {wanted:,} shards are there; run the same `robustvit data "
                "prepare` again, it goes on where it stopped"
            )
    return ""


def _not_found(name: str, data_dir: str) -> str:
    """What to do about a dataset that is not in `data_dir`."""
    import tensorflow_datasets as tfds

    found = _prepared(data_dir)
    there = f"prepared in {data_dir}: {', '.join(found) or 'nothing'}"
    known = tfds.list_builders(with_community_datasets=False)
    if name.split(":")[0].split("/")[0] in known:
        return (
            f"dataset {name!r} is not prepared ({there}) and nothing is downloaded "
            f"here; prepare it once with {_build_command(name, data_dir)}, or from "
            "files that you have with `robustvit data prepare`"
        )
    base_names = {entry.split(":")[0] for entry in found}
    nearest = difflib.get_close_matches(name, {*base_names, *known, "digits"}, n=3)
    return (
        f"unknown dataset {name!r}, wanted 'digits', 'imagenet100', 'folder:<path>', "
        f"'synthetic:<path>' or a TFDS name; nearest: {', '.join(nearest) or 'none'}; "
        f"{there}"
    )


def _build_command(name: str, data_dir: str) -> str:
    return f"`tfds build {name} --file_format=array_record --data_dir={data_dir}`"


def _prepared(data_dir: str) -> list[str]:
    """Names such as "cifar10:3.0.2" and "dataset/config:1.0.0"."""
    from etils import epath  # data_dir may be a bucket

    root = epath.Path(data_dir)
    patterns = ("*/*/dataset_info.json", "*/*/*/dataset_info.json")
    found = [path.parent for pattern in patterns for path in root.glob(pattern)]
    return sorted(f"{path.parent.relative_to(root)}:{path.name}" for path in found)


def supervised_features(info: Any) -> tuple[str, str]:
    """Names of the image and of the label: the supervised pair, or the only two."""
    from tensorflow_datasets import features

    images = _of_kind(info.features, features.Image)
    labels = _of_kind(info.features, features.ClassLabel)
    match info.supervised_keys:
        case (str(image), str(label)) if image in images and label in labels:
            return image, label
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(
            f"{info.full_name} has image features {images} and class labels {labels}, "
            "wanted one of each at the top level"
        )
    return images[0], labels[0]


def _of_kind(features: Any, kind: type) -> list[str]:
    return [name for name, feature in features.items() if isinstance(feature, kind)]
