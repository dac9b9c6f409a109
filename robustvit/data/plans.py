"""What `prepare` has to write: the shards, and what describes them.

plan = of_originals(list_folder("/data/imagenet"), "imagenet2012", Encoding())
plan = of_tfrecords("/data/tfds/imagenet2012/5.1.0", Encoding())
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robustvit.data import prepared
from robustvit.data.examples import NAMES, Encoding, Names, encoded_anew, pack
from robustvit.data.images import CorruptImageError
from robustvit.data.originals import Item, Originals

SHARD_SIZE = 1250  # images: some 140 MB of ImageNet, and 1,025 shards of it
# What TFDS calls the splits of ImageNet, and so do the configs.
TFDS_SPLITS = {"imagenet2012": {"val": "validation"}}
VERSIONS = {"imagenet2012": "5.1.0"}


@dataclass(frozen=True, eq=False)
class Shard:
    """One file to write, and the examples in it, in order."""

    split: str
    file: str
    items: list[Item] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Plan:
    """A dataset to write."""

    name: str
    version: str  # with the config, if the dataset has them: "config/1.0.0"
    where: str  # it is made from
    encoding: Encoding
    names: Names
    class_names: tuple[str, ...] = field(repr=False)
    shards: list[Shard] = field(repr=False)
    record: Callable[[Item], bytes] = field(repr=False)
    describe: Callable[[Path], dict[str, Any]] = field(repr=False)
    """Writes the features into a folder; returns the dataset_info to write."""

    def __len__(self) -> int:
        """Number of examples."""
        return sum(len(shard.items) for shard in self.shards)

    @property
    def splits(self) -> dict[str, list[Shard]]:
        """The shards of each split."""
        found: dict[str, list[Shard]] = {}
        for shard in self.shards:
            found.setdefault(shard.split, []).append(shard)
        return found

    def fingerprint(self) -> str:
        """Differs where other bytes would be written."""
        digest = hashlib.sha256(repr(self.encoding).encode())
        for shard in self.shards:
            digest.update(f"{shard.split} {shard.file}\n".encode())
            for item in shard.items:
                text = f"{item.name} {item.label} {item.offset} {item.size}\n"
                digest.update(text.encode())
        return digest.hexdigest()[:16]


def of_originals(
    originals: Originals, name: str, encoding: Encoding, *, shard_size: int = SHARD_SIZE
) -> Plan:
    """Images that are files, in an order that is drawn once."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"got the name {name!r}, wanted small letters, digits and _, like my_birds"
        )
    renamed = TFDS_SPLITS.get(name, {})
    shards = []
    for found, items in originals.splits.items():
        shards += _shuffled(name, renamed.get(found, found), items, shard_size)
    return Plan(
        name=name,
        version=VERSIONS.get(name, "1.0.0"),
        where=originals.where,
        encoding=encoding,
        names=NAMES,
        class_names=originals.class_names,
        shards=shards,
        # In ImageNet the files' names are enough, and what TFDS has.
        record=partial(_packed, encoding, with_class=not renamed),
        describe=partial(_describe, originals, name, encoding),
    )


def _shuffled(name: str, split: str, items: list[Item], size: int) -> list[Shard]:
    # As in `folders`: shuffled, because a part of the split must have all classes.
    order = np.random.RandomState(0).permutation(len(items))
    count = -(-len(items) // size)
    return [
        Shard(
            split,
            f"{name}-{split}.array_record-{i:05}-of-{count:05}",
            [items[j] for j in order[i * size : (i + 1) * size]],
        )
        for i in range(count)
    ]


def _packed(encoding: Encoding, item: Item, *, with_class: bool) -> bytes:
    """The record of an image."""
    try:
        image = encoding(item.read())
    except CorruptImageError as error:
        message = f"{item.path} ({item.name}) is no image: {error}"
        raise CorruptImageError(message) from error
    name = item.name if with_class else Path(item.name).name
    return pack(image, label=item.label, file_name=name)


def _describe(
    originals: Originals, name: str, encoding: Encoding, folder: Path
) -> dict[str, Any]:
    _features(originals.class_names, encoding).save_config(str(folder))
    keys = [{"featureKey": key} for key in (NAMES.image, NAMES.label)]
    return {
        "name": name,
        "version": VERSIONS.get(name, "1.0.0"),
        "description": f"By `robustvit data prepare` from {originals.where}",
        "fileFormat": "array_record",
        "supervisedKeys": {"tuple": {"items": keys}},
    }


def _features(class_names: tuple[str, ...], encoding: Encoding) -> Any:
    from tensorflow_datasets import features

    format_ = "png" if encoding.keep_png else "jpeg"
    return features.FeaturesDict(
        {
            NAMES.file: features.Text(),
            NAMES.image: features.Image(encoding_format=format_),
            NAMES.label: features.ClassLabel(names=class_names),
        }
    )


def of_tfrecords(path: str | Path, encoding: Encoding) -> Plan:
    """A copy in TFDS' default format: the same records, in files of another kind."""
    from tensorflow_datasets.core import read_only_builder

    source = Path(path).expanduser()
    info: Any = read_only_builder.builder_from_directory(source).info
    if info.file_format is None or info.file_format.value != "tfrecord":
        raise ValueError(f"{source} is stored as {info.file_format}, wanted tfrecord")
    image, label = prepared.supervised_features(info)
    names = Names(image=image, label=label)
    shards = [
        _copied(split, Path(file), length)
        for split, part in info.splits.items()
        for file, length in zip(part.filepaths, part.shard_lengths, strict=True)
    ]

    def record(item: Item) -> bytes:
        data = item.read()
        unchanged = not encoding.max_side and not encoding.quality
        return data if unchanged else encoded_anew(data, encoding, names)

    return Plan(
        name=info.name,
        version=info.full_name.partition("/")[2],
        where=str(source),
        encoding=encoding,
        names=names,
        class_names=tuple(info.features[label].names),
        shards=shards,
        record=record,
        describe=partial(_copy_description, source),
    )


def _copied(split: str, file: Path, length: int) -> Shard:
    """A shard with the records of a file of TFRecords."""
    items = [Item(str(file), offset, size, -1, "")
             for offset, size in tfrecords_in(file)]  # fmt: skip
    if len(items) != length:
        raise ValueError(
            f"{file} has {len(items):,} records, and {length:,} by dataset_info.json: "
            "it is cut off, or of another copy"
        )
    return Shard(split, file.name.replace(".tfrecord-", ".array_record-"), items)


def _copy_description(source: Path, folder: Path) -> dict[str, Any]:
    for file in [*source.glob("features.json"), *source.glob("*.txt")]:
        shutil.copyfile(file, folder / file.name)
    described = json.loads((source / "dataset_info.json").read_text())
    return {**described, "fileFormat": "array_record"}


def tfrecords_in(file: Path) -> Iterator[tuple[int, int]]:
    """(where its bytes begin, how many) of each record; the checksums are not read.

    A record: its length in eight bytes, four of checksum, the bytes, four of checksum.
    """
    end = file.stat().st_size
    with file.open("rb") as opened:
        start = 0
        while start < end:
            opened.seek(start)
            header = opened.read(12)
            size = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else end
            if start + 12 + size + 4 > end:
                raise ValueError(f"{file} is cut off, or no file of TFRecords")
            yield start + 12, size
            start += 12 + size + 4
