"""Labels of validation images, out of the devkit or a text file."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from robustvit.data import imagenet, robustbench, val_labels

NAMES = ("n01", "n02", "n03")
# The devkit numbers classes in its own order, and inner nodes of WordNet after them.
SYNSETS = {1: "n03", 2: "n01", 3: "n02", 4: "n99"}


def _devkit(path: Path, numbers, *, meta=True) -> Path:
    rows = [(number, wnid, "words") for number, wnid in SYNSETS.items()]
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O")]
    file = io.BytesIO()
    savemat(file, {"synsets": np.array(rows, dtype=kinds)[:, None]})
    members = {val_labels.TRUTH: "\n".join(map(str, numbers)).encode()}
    if meta:
        members[val_labels.META] = file.getvalue()
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_the_devkit(tmp_path: Path) -> None:
    file = _devkit(tmp_path / "devkit.tar.gz", [1, 2, 3, 1, 2])
    assert val_labels.read(file, NAMES, count=5) == [2, 0, 1, 2, 0]
    with pytest.raises(ValueError, match=r"has 5 labels for 6 images"):
        val_labels.read(file, NAMES, count=6)
    other = _devkit(tmp_path / "other.tar.gz", [1], meta=False)
    with pytest.raises(ValueError, match=r"is not ImageNet's devkit: .*meta\.mat"):
        val_labels.read(other, NAMES, count=1)


def test_labels_that_contradict_what_is_known() -> None:
    wnids = imagenet.wnids()
    known = [id_.split("/") for id_ in robustbench.image_ids()]
    right = {file: wnids.index(wnid) for wnid, file in known}
    val_labels.check_known(right, wnids)
    val_labels.check_known({"ILSVRC2012_val_00000000.JPEG": 7}, wnids)
    val_labels.check_known({}, NAMES)
    shifted = {file: (label + 1) % 1000 for file, label in right.items()}
    message = r"5,000 of 5,000 known validation images have a wrong label: .*00015253"
    with pytest.raises(ValueError, match=message):
        val_labels.check_known(shifted, wnids)
