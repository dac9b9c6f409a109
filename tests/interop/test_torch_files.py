import argparse
import zipfile

import numpy as np
import pytest

from robustvit.interop.torch_files import read_torch_file
from robustvit.interop.torch_writer import write_torch_file
from tests.interop.torch_pickles import (
    Call,
    Global,
    tensor,
    write_legacy,
    write_zip,
)

A = np.arange(12, dtype=np.float32).reshape(3, 4)
B = np.arange(5, dtype=np.float16)
ARRAYS = {"0": A, "1": B}


def example(view=()):
    namespace = Call(Global("argparse", "Namespace"))
    return {
        "model": {
            "a": tensor("0", A, view=view),
            "transposed": tensor("0", A, shape=(4, 3), strides=(1, 4), view=view),
            "row": tensor("0", A, offset=4, shape=(4,), view=view),
            "b": tensor("1", B, view=view),
            "scalar": tensor("1", B, offset=2, shape=(), view=view),
            "empty": tensor("1", B, shape=(0, 3), view=view),
        },
        "args": namespace,
        "epoch": 3,
        "list": [tensor("1", B, view=view), "text", None, 0.5],
    }


@pytest.mark.parametrize("writer", [write_zip, write_legacy])
def test_both_formats_are_read(tmp_path, writer):
    path = tmp_path / "x.pth"
    view = (None,) if writer is write_legacy else ()
    writer(path, example(view), ARRAYS)
    read = read_torch_file(path)
    model = read["model"]
    np.testing.assert_array_equal(model["a"], A)
    np.testing.assert_array_equal(model["transposed"], A.T)
    np.testing.assert_array_equal(model["row"], A[1])
    np.testing.assert_array_equal(model["b"], B)
    assert model["b"].dtype == np.float16
    assert model["scalar"] == 2 and model["scalar"].shape == ()
    assert model["empty"].shape == (0, 3)
    assert isinstance(read["args"], argparse.Namespace)
    assert read["epoch"] == 3 and read["list"][1:] == ["text", None, 0.5]


@pytest.mark.parametrize("writer", [write_zip, write_legacy])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, writer):
    path = tmp_path / "x.pth"
    view = (None,) if writer is write_legacy else ()
    writer(path, example(view), ARRAYS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"x\.pth is cut off, damaged"):
            read_torch_file(path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch._utils", "_rebuild_xla_tensor"),
        ("torch", "load"),
        ("numpy", "ndarray"),
        ("collections", "Counter"),
        ("robustvit.interop.torch_files", "open"),
    ],
)
def test_code_is_refused_and_not_run(tmp_path, module, name):
    marker = tmp_path / "executed"
    call = Call(Global(module, name), f"touch {marker}")
    for writer in (write_zip, write_legacy):
        path = tmp_path / "evil.pth"
        writer(path, {"state_dict": call}, {})
        with pytest.raises(ValueError, match=f"asks for '{module}.{name}'.*executed"):
            read_torch_file(path)
    assert not marker.exists()


def test_attributes_set_by_a_pickle_do_not_outlive_it(tmp_path):
    """BUILD may set attributes of a stand-in; the next file gets a new one."""
    path = tmp_path / "x.pth"
    namespace = Global("argparse", "Namespace")
    write_zip(path, {"args": Call(namespace), "class": namespace}, {})
    first, second = (read_torch_file(path)["class"] for _ in range(2))
    assert first is not second and first is not argparse.Namespace


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (tensor("0", A, offset=5), "reaches past its storage"),
        (tensor("0", A, shape=(3, 4), strides=(5, 1)), "reaches past its storage"),
        (tensor("0", A, shape=(3, 4), strides=(-1, 1)), "no tensor has shape"),
        (tensor("0", A, shape=(3,), strides=(1, 1)), "no tensor has shape"),
        (tensor("0", np.zeros(10**6, np.float32)), "wants 1000000 numbers"),
        (tensor("7", A), "data/7"),
    ],
)
def test_memory_outside_a_storage_is_never_read(tmp_path, wrong, message):
    path = tmp_path / "x.pth"
    write_zip(path, {"a": wrong}, ARRAYS)
    with pytest.raises(ValueError, match=message):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extra": {"constants.pkl": b""}}, "TorchScript"),
        ({"extra": {"byteorder": b"big"}}, "big-endian"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    ],
)
def test_other_zips_are_told_apart(tmp_path, options, message):
    path = tmp_path / "x.pth"
    write_zip(path, example(), ARRAYS, **options)
    with pytest.raises(ValueError, match=message):
        read_torch_file(path)


def laughing(depth=40):
    """A list of two lists of two lists ..., each shared: 2 ** depth leaves."""
    node = [1.0]
    for _ in range(depth):
        node = [node, node]
    return node


def test_shared_containers_are_read_once(tmp_path):
    path = tmp_path / "x.pth"
    write_zip(path, {"laugh": laughing(), "a": tensor("0", A)}, ARRAYS)
    np.testing.assert_array_equal(read_torch_file(path)["a"], A)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (Global("torch", "ComplexFloatStorage"), "a kind that is not read here"),
        (
            Call(Global("torch._utils", "_rebuild_sparse_tensor")),
            "save them as float32",
        ),
        (Call(Global("torch", "device"), laughing()), None),
    ],
)
def test_other_tensors_are_named_and_devices_are_names(tmp_path, tree, message):
    path = tmp_path / "x.pth"
    write_zip(path, {"x": tree}, {})
    if message is None:
        assert read_torch_file(path)["x"] is None
        return
    with pytest.raises(ValueError, match=message):
        read_torch_file(path)


def test_lengths_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    big = np.zeros(10**6, np.float32)
    write_legacy(path, {"a": tensor("0", A, view=(None,))}, {"0": big})
    with pytest.raises(ValueError, match="not as long as announced"):
        read_torch_file(path)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.pth"
    arrays = {
        "matrix": A,
        "transposed": A.T,
        "kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "counter": np.array(7),
        "naïve": np.zeros(0, np.float32),
    }
    write_torch_file(path, arrays)
    read = read_torch_file(path)
    assert list(read) == list(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array)
        assert read[key].dtype == array.dtype
