"""Files as torch writes them, by hand: torch is not needed to make trouble."""

import io
import pickle
import zipfile

import numpy as np

from robustvit.interop.torch_files import MAGIC, PROTOCOL

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage"}


class Global:
    """Pickles as a reference to a name that need not exist here."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickles as a call of a `Global`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Storage:
    """Pickles as torch's reference to numbers kept elsewhere in the file."""

    def __init__(self, key, array, view=()):
        dtype = Global("torch", STORAGES[str(array.dtype)])
        self.pid = ("storage", dtype, key, "cpu", array.size, *view)


class _Pickler(pickle._Pickler):
    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(obj, Storage):
            self.save(obj.pid)
            self.write(pickle.BINPERSID)
        else:
            super().save(obj, save_persistent_id)


def dumps(obj) -> bytes:
    file = io.BytesIO()
    _Pickler(file, 2).dump(obj)
    return file.getvalue()


def tensor(key, array, *, offset=0, shape=None, strides=None, view=()):
    """A `_rebuild_tensor_v2` of the storage `key`, by default all of it, row-major."""
    shape = array.shape if shape is None else shape
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    hooks = Call(Global("collections", "OrderedDict"))
    storage = Storage(key, array, view)
    return Call(rebuild, storage, offset, shape, strides, False, hooks)


def write_zip(path, tree, arrays, *, compression=zipfile.ZIP_STORED, extra=()):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", dumps(tree))
        for key, array in arrays.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        for name, data in dict(extra).items():
            archive.writestr(f"archive/{name}", data)


def write_legacy(path, tree, arrays):
    info = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}
    parts = [dumps(MAGIC), dumps(PROTOCOL), dumps(info), dumps(tree)]
    parts.append(dumps(list(arrays)))
    for array in arrays.values():
        parts += [array.size.to_bytes(8, "little"), array.tobytes()]
    path.write_bytes(b"".join(parts))
