"""Generated images in files, as they are published."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from robustvit.data import synthetic
from robustvit.data.sources import open_source
from robustvit.data.synthetic import open_synthetic

COUNT = 30
IMAGES = np.random.RandomState(0).randint(0, 256, (COUNT, 32, 32, 3), np.uint8)
LABELS = np.repeat(np.arange(3), 10)  # sorted by class


def _write(folder: Path, kind: str) -> Path:
    file = folder / f"ddpm_images{kind}"
    if kind == ".npz":
        np.savez(file, image=IMAGES, label=LABELS)
        return file
    if kind == ".bin":
        file.write_bytes(IMAGES.tobytes())
        np.save(folder / "ddpm_labels.npy", LABELS)
    else:
        np.save(file, IMAGES)
        np.save(folder / "ddpm_images_labels.npy", LABELS.astype(np.uint8))
    return file


@pytest.mark.parametrize("kind", [".bin", ".npy", ".npz"])
def test_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    source = open_source(f"synthetic:{_write(tmp_path, kind)}", "train")
    assert (len(source), source.num_classes) == (COUNT, 3)
    places = [int(source.describe(i).split()[-1]) for i in range(COUNT)]
    assert sorted(places) == list(range(COUNT)) != places
    for i, place in enumerate(places):
        raw = source[i]
        assert raw["image"].dtype == np.uint8 and type(raw["image"]) is np.ndarray
        np.testing.assert_array_equal(raw["image"], IMAGES[place])
        assert raw["label"] == LABELS[place]


def test_parts_have_all_classes_and_make_up_the_whole(tmp_path: Path) -> None:
    file = str(_write(tmp_path, ".bin"))
    parts = [open_synthetic(file, f"train[{p}]") for p in (":40%", "40%:")]
    described = [s.describe(i) for s in parts for i in range(len(s))]
    whole = open_synthetic(file, "train")
    assert described == [whole.describe(i) for i in range(COUNT)]
    assert {parts[0][i]["label"] for i in range(12)} == {0, 1, 2}
    assert parts[0].num_classes == 3
    with pytest.raises(ValueError, match=r"no split 'test'; it has train \(30"):
        open_synthetic(file, "test")


def test_it_is_mapped_and_small_to_pickle(tmp_path: Path) -> None:
    source = open_synthetic(str(_write(tmp_path, ".npz")), "train")
    assert isinstance(source.images.array(), np.memmap)
    text = pickle.dumps(source)
    assert len(text) < IMAGES.nbytes / 10
    np.testing.assert_array_equal(pickle.loads(text)[3]["image"], source[3]["image"])


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _labels(path, labels):
    np.save(path.with_name("ddpm_labels.npy"), labels)


BAD = {
    "a cut record": (".bin", _cut, "has 92,153 bytes, wanted a multiple of 3,072"),
    "an empty file": (".bin", lambda p: p.write_bytes(b""), "has 0 bytes"),
    "a cut array": (".npy", _cut, "is cut off: 92,153 of 92,160 bytes of an array"),
    "too few labels": (
        ".bin", lambda p: _labels(p, LABELS[1:]), "29 labels for the 30 images"),
    "too many labels": (
        ".bin", lambda p: _labels(p, [*LABELS, 1]), "31 labels for the 30 images"),
    "no labels": (
        ".bin", lambda p: p.with_name("ddpm_labels.npy").unlink(),
        "wanted ddpm_labels.npy or ddpm_images_labels.npy"),
    "broken labels": (
        ".bin", lambda p: _labels(p, LABELS / 2), "wanted one integer for each"),
    "labels below 0": (".bin", lambda p: _labels(p, LABELS - 1), "has label -1"),
    "floats": (
        ".npy", lambda p: np.save(p, IMAGES / 255), "has float64 of shape"),
    "channels first": (
        ".npy", lambda p: np.save(p, IMAGES.transpose(0, 3, 1, 2)), "by columns|shape"),
    "no array": (".npy", lambda p: p.write_bytes(b"hello" * 9), "is no .npy file"),
    "no archive": (".npz", lambda p: p.write_bytes(b"hello"), "is no .npz file"),
    "other names": (
        ".npz", lambda p: np.savez(p, x=IMAGES, y=LABELS),
        r"arrays \['x', 'y'\], wanted one called image or images"),
    "compressed": (
        ".npz", lambda p: np.savez_compressed(p, image=IMAGES, label=LABELS),
        "is compressed and cannot be mapped"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil", "message"), BAD.values(), ids=BAD)
def test_bad_files(tmp_path: Path, kind: str, spoil, message: str) -> None:
    file = _write(tmp_path, kind)
    spoil(file)
    with pytest.raises(ValueError, match=message):
        open_synthetic(str(file), "train")


@pytest.mark.parametrize("name", ["nothing.bin", "images.txt"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "images.txt").write_text("")
    with pytest.raises(ValueError, match=r"is not a file that ends in .bin or .npy or"):
        open_synthetic(str(tmp_path / name), "train")


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """Opening 3 GB of zeros (a hole in the disk) takes next to no memory and time."""
    file = tmp_path / "large.bin"
    with file.open("wb") as opened:
        opened.truncate(1_000_000 * 3072)
    np.save(tmp_path / "large.npy", np.arange(1_000_000, dtype=np.uint8) % 10)
    before = _resident()
    source = open_synthetic(str(file), "train")
    assert source[999_999]["image"].sum() == 0 and len(source) == 1_000_000
    assert _resident() - before < 200e6
    synthetic._map.cache_clear()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
