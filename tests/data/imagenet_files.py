"""ImageNet of three classes and a few images, in the forms that people have it in."""

import io
import struct
import tarfile
from pathlib import Path

from robustvit.data import originals
from tests.data.conftest import encode, smooth_image

CLASSES = ("n01", "n02", "n03")
COUNTS = {"n01": 7, "n02": 5, "n03": 8}
VAL_LABELS = (2, 0, 1, 1, 2, 0, 0)


def photo(seed, height=12, width=16):
    return encode(smooth_image(height, width, seed=seed))


def train_files():
    """(class, file name, bytes), sorted."""
    names = [(name, i) for name, count in COUNTS.items() for i in range(count)]
    return [(n, f"{n}_{i}.JPEG", photo(k)) for k, (n, i) in enumerate(names)]


def val_files():
    """(file name, bytes), sorted."""
    count = range(len(VAL_LABELS))
    return [(f"ILSVRC2012_val_{i + 1:08}.JPEG", photo(100 + i)) for i in count]


def write_labels(folder: Path) -> Path:
    (folder / "val.txt").write_text("\n".join(CLASSES[i] for i in VAL_LABELS))
    return folder / "val.txt"


def write_folder(root: Path, *, flat: bool = True) -> Path:
    """train/<class>/ and val/, whose images lie in it or in class folders."""
    for name, file, data in train_files():
        (root / "train" / name).mkdir(parents=True, exist_ok=True)
        (root / "train" / name / file).write_bytes(data)
    for label, (file, data) in zip(VAL_LABELS, val_files(), strict=True):
        folder = root / "val" if flat else root / "val" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    return root


def write_tars(root: Path) -> Path:
    """A tar of a tar per class, and a tar of images."""
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / originals.TRAIN_TAR, "w") as train:
        for name in CLASSES:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as one:
                for found, file, data in train_files():
                    if found == name:
                        _add(one, file, data)
            _add(train, f"{name}.tar", inner.getvalue())
    with tarfile.open(root / originals.VAL_TAR, "w") as val:
        for file, data in val_files():
            _add(val, file, data)
    return root


def _add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_tfrecords(file: Path, records: list[bytes]) -> None:
    """The framing, with zeros for the checksums, which are not read."""
    with file.open("wb") as opened:
        for record in records:
            opened.write(struct.pack("<QI", len(record), 0) + record + bytes(4))
