"""Reading torch's weight files without torch, and without running what is in them.

    contents = read_torch_file("resnet20.th")       # nested dicts of numpy arrays

A torch file is a pickle, and a pickle is a program. The unpickler here knows tensors
and plain containers; any other name stops it before anything of that name is looked up.
Both formats are read: the zip of torch 1.6 and later, and the stream of pickles before.
Tensors of a zip are views of the mapped file: no memory is spent until they are used.
"""

from __future__ import annotations

import argparse
import collections
import io
import math
import mmap
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a legacy file
PROTOCOL = 1001
ZIP_START = b"PK\x03\x04"
LOCAL_HEADER = 30  # bytes before the name in a zip's local header

STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


# What a broken pickle can raise in the unpickler.
_DAMAGE = (
    pickle.UnpicklingError, zipfile.BadZipFile, EOFError, LookupError, TypeError,
    AttributeError, ValueError, ArithmeticError, MemoryError, RuntimeError, zlib.error,
)  # fmt: skip


class Refused(Exception):
    """A file that is whole, and that is not for us to read."""


class _Storage(NamedTuple):
    """A stretch of numbers somewhere in the file."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A view of a storage, resolved once the numbers can be read."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: str | Path) -> Any:
    """The object that was saved, with numpy arrays for tensors.

    Raises:
      ValueError: for a file that is not from `torch.save`, is cut off, or holds
        anything but tensors, numbers, text and containers; nothing of it was executed.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(4) == ZIP_START:
                return _read_zip(path)
            file.seek(0)
            return _read_legacy(file)
    except Refused as error:
        raise ValueError(f"{path} {error}") from None
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is cut off, damaged, or not a torch file "
            f"({error or 'it ends early'})"
        ) from None


def _read_zip(path):
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        if "data.pkl" not in names:
            raise Refused("is a zip, but not one that torch.save wrote")
        if "constants.pkl" in names:
            raise Refused(
                "is a TorchScript program, not weights: load it in torch and save its "
                "state_dict()"
            )
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise Refused("is compressed, which torch never does")
        order = names.get("byteorder")
        if order and archive.read(order) != b"little":
            raise Refused("was written on a big-endian machine")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

        def numbers(storage: _Storage) -> np.ndarray:
            info = archive.getinfo(names[f"data/{storage.key}"])
            header = mapped[info.header_offset : info.header_offset + LOCAL_HEADER]
            name, extra = (
                int.from_bytes(header[i : i + 2], "little") for i in (26, 28)
            )
            start = info.header_offset + LOCAL_HEADER + name + extra
            _check_size(storage, min(info.file_size, len(mapped) - start))
            return np.frombuffer(mapped, storage.dtype, storage.size, start)

        tree = _Unpickler(io.BytesIO(archive.read(names["data.pkl"]))).load()
        return _resolve(tree, numbers)


def _read_legacy(file):
    if _Unpickler(file).load() != MAGIC or _Unpickler(file).load() != PROTOCOL:
        raise pickle.UnpicklingError("it does not begin as torch's files do")
    if not _Unpickler(file).load().get("little_endian", True):
        raise Refused("was written on a big-endian machine")
    unpickler = _Unpickler(file)
    tree = unpickler.load()
    length = os.fstat(file.fileno()).st_size
    arrays = {}
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.size:
            raise pickle.UnpicklingError(f"storage {key} is not as long as announced")
        data = file.read(min(storage.size * storage.dtype.itemsize, length))
        _check_size(storage, len(data))
        arrays[key] = np.frombuffer(data, storage.dtype)
    return _resolve(tree, lambda storage: arrays[storage.key])


def _check_size(storage, available):
    if storage.size * storage.dtype.itemsize > available:
        raise pickle.UnpicklingError(
            f"storage {storage.key} wants {storage.size} numbers and the file ends"
        )


class _Unpickler(pickle.Unpickler):
    """Knows the names that weights need; any other is refused unseen."""

    def __init__(self, file):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}
        self._allowed = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for a name that is allowed."""
        if module == "torch" and name in STORAGES:
            return name
        if (module, name) in self._allowed:
            return self._allowed[module, name]
        kind = module.startswith("torch._utils") or name.endswith("Storage")
        raise Refused(
            f"asks for '{module}.{name}', and was refused: "
            + ("its tensors are of a kind that is not read here: save them as float32. "
               if kind else "only tensors and plain containers are weights. ")
            + "Nothing was executed. If you trust the file, open it in torch and save "
            "its state_dict() alone"
        )  # fmt: skip

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage that the pickle refers to."""
        kind, storage_type, key, _, size, *view = pid
        if kind != "storage" or any(view):
            raise pickle.UnpicklingError(f"unknown reference {pid!r}")
        dtype = np.dtype(STORAGES[storage_type])
        return self.storages.setdefault(key, _Storage(str(key), dtype, int(size)))


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    """What names in a pickle stand for: made anew, as a pickle can set attributes."""

    def tensor(storage, offset, shape, strides, *_):
        return _Tensor(storage, int(offset), tuple(shape), tuple(strides))

    def parameter(data, *_):
        return data

    class Dtype:
        def __init__(self, code, *_):
            if str(code)[:1] not in tuple("biuf") or not str(code)[1:].isdigit():
                raise pickle.UnpicklingError(f"dtype {code!r} is not a number's")
            self.dtype = np.dtype(code)

        def __setstate__(self, state):
            pass  # byte order and alignment, of which we know the defaults

    def scalar(dtype: Dtype, data: bytes):
        return np.frombuffer(data, dtype.dtype, 1)[0]

    def device(name, *_):
        return name if isinstance(name, str) else None

    def encode(text: str, _):
        return text.encode("latin1")  # how protocol 2 writes bytes

    class Namespace(argparse.Namespace):
        pass

    return {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch._utils", "_rebuild_tensor"): tensor,
        ("torch._utils", "_rebuild_parameter"): parameter,
        ("torch", "Size"): tuple,
        ("torch", "device"): device,
        # Facebook keeps the arguments of its training script beside the weights,
        ("argparse", "Namespace"): Namespace,
        # and timm the metrics.
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy._core.multiarray", "scalar"): scalar,
        ("numpy", "dtype"): Dtype,
        ("_codecs", "encode"): encode,
    }


def _resolve(tree, numbers):
    """Every `_Tensor` in nested containers as an array; what is shared stays so."""
    done: dict[int, Any] = {}

    def resolved(node):
        if isinstance(node, _Tensor):
            return _view(node, numbers(node.storage))
        if not isinstance(node, dict | list | tuple):
            return node
        if id(node) not in done:
            done[id(node)] = None  # a container inside itself: torch saves none
            pairs = isinstance(node, dict)
            items = node.items() if pairs else enumerate(node)
            new = {key: resolved(value) for key, value in items}
            done[id(node)] = new if pairs else list(new.values())
        return done[id(node)]

    return resolved(tree)


def _view(tensor, numbers):
    shape, strides = tensor.shape, tensor.strides
    if len(shape) != len(strides) or min((*shape, *strides, tensor.offset, 0)) < 0:
        raise pickle.UnpicklingError(f"no tensor has shape {shape}, strides {strides}")
    if math.prod(shape) == 0:
        return np.empty(shape, numbers.dtype)
    reach = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if tensor.offset + reach >= len(numbers):
        raise pickle.UnpicklingError(f"a tensor of {shape} reaches past its storage")
    itemsize = numbers.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :],
        shape,
        [stride * itemsize for stride in strides],
        writeable=False,
    )
