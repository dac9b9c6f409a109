"""Writing a state dict as `torch.save` does, without torch.

    write_torch_file("model.pth", {"head.weight": array})

The file is a zip (stored, not compressed) with a pickle of the names and shapes, and
the numbers of each tensor in an entry of their own, which `torch.load` reads with
`weights_only=True`.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.int64): "LongStorage",
}
# Opcodes of pickle's protocol 2, as Python's pickletools documents them.
PROTO, STOP, MARK, TUPLE, EMPTY_TUPLE = b"\x80\x02", b".", b"(", b"t", b")"
BINUNICODE, BININT, LONG1, NEWFALSE = b"X", b"J", b"\x8a", b"\x89"
BINPERSID, REDUCE, SETITEMS = b"Q", b"R", b"u"


def write_torch_file(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A .pth file with these float32 or int64 arrays under these names."""
    arrays = [np.asarray(tensor) for tensor in tensors.values()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", _pickle(list(tensors), arrays))
        archive.writestr("archive/byteorder", "little")
        for i, array in enumerate(arrays):
            with archive.open(f"archive/data/{i}", "w", force_zip64=True) as entry:
                entry.write(np.ascontiguousarray(array).data.cast("B"))
        archive.writestr("archive/version", "3\n")


def _pickle(names, arrays) -> bytes:
    """An OrderedDict of `_rebuild_tensor_v2(storage, 0, shape, strides, False, {})`."""
    out = io.BytesIO()
    out.write(PROTO + _name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE + MARK)
    for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
        strides = np.cumprod([1, *array.shape[:0:-1]])[::-1] if array.ndim else []
        storage = (
            MARK + _text("storage") + _name("torch", STORAGES[array.dtype])
            + _text(str(i)) + _text("cpu") + _integer(array.size) + TUPLE + BINPERSID
        )  # fmt: skip
        hooks = _name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE
        arguments = (
            MARK + storage + _integer(0) + _integers(array.shape) + _integers(strides)
            + NEWFALSE + hooks + TUPLE
        )  # fmt: skip
        rebuild = _name("torch._utils", "_rebuild_tensor_v2")
        out.write(_text(name) + rebuild + arguments + REDUCE)
    out.write(SETITEMS + STOP)
    return out.getvalue()


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return BINUNICODE + struct.pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    if value < 2**31:
        return BININT + struct.pack("<i", value)
    data = int(value).to_bytes(8, "little", signed=True)
    return LONG1 + bytes([len(data)]) + data


def _integers(values) -> bytes:
    return MARK + b"".join(_integer(int(value)) for value in values) + TUPLE
