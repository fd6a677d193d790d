"""PyTorch's .pt and .pth: a state_dict, and nothing that would have to be run.

The zip form (torch >= 1.6) is read here without torch: its index is a pickle of which only the few names below are
resolved, to functions of this file, and the tensors are read in place. The older form needs torch's own weights-only
reader.
"""
from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from typing import Any

import numpy as np

from ..errors import ExportError
from ..tensors import NUMPY_TYPES, ArrayTensor, FileTensor, Tensor, type_name
from .zip_member import data_offset, open_zip

STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
WAY_OUT = "save the weights alone: torch.save(model.state_dict(), 'weights.pt') or safetensors.torch.save_file"
# Keys under which training loops put the state_dict.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")


def read(path: str) -> dict[str, Tensor]:
    state = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    return _state_dict(path, state)


def _state_dict(path: str, state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict):
        raise ExportError(f"{path}: holds a {type(state).__name__}, not a state_dict; {WAY_OUT}")
    for key in WRAPPERS:
        if isinstance(state.get(key), dict) and state[key] and all(isinstance(v, Tensor) for v in state[key].values()):
            return dict(state[key])
    odd = next((f"{k!r} is a {type(v).__name__}" for k, v in state.items() if not isinstance(v, Tensor)), None)
    if odd is not None:
        raise ExportError(f"{path}: not a state_dict: {odd}; {WAY_OUT}")
    return dict(state)


class _Unpickler(pickle.Unpickler):
    """Resolves nothing but what a state_dict is made of."""

    def __init__(self, path: str, data: bytes, storages: "_Storages") -> None:
        super().__init__(io.BytesIO(data))
        self._path, self._storages = path, storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._storages.tensor
        if (module, name) in (
            ("torch._utils", "_rebuild_parameter"),
            ("torch._utils", "_rebuild_parameter_with_state"),
        ):
            return lambda tensor, *_: tensor
        if module in ("torch", "torch.storage") and name in STORAGES:
            return name
        raise ExportError(
            f"{self._path}: a pickle that wants {module}.{name}; opening it could run any code, so it is "
            f"refused; {WAY_OUT}"
        )

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        kind, storage, key = pid[0], pid[1], pid[2]
        if kind != "storage" or storage not in STORAGES:
            raise ExportError(f"{self._path}: storage {storage!r} is not supported; accepted: {', '.join(STORAGES)}")
        return STORAGES[storage], str(key)


class _Storages:
    """The data members of the archive, as tensors that are read in place."""

    def __init__(self, path: str, archive: zipfile.ZipFile, root: str) -> None:
        self._path, self._archive, self._root = path, archive, root

    def tensor(
        self, storage: tuple[str, str], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> Tensor:
        dtype, key = storage
        try:
            member = self._archive.getinfo(f"{self._root}data/{key}")
        except KeyError as error:
            raise ExportError(f"{self._path}: data/{key} is missing from the archive; the file is cut") from error
        item = NUMPY_TYPES[dtype].itemsize
        last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if all(size) else offset - 1
        if offset < 0 or min(stride, default=0) < 0 or (last + 1) * item > member.file_size:
            raise ExportError(
                f"{self._path}: data/{key} has {member.file_size} bytes, the tensor {list(size)} ends at "
                f"{(last + 1) * item}"
            )
        begin = data_offset(self._archive, member)
        contiguous = all(n == 1 or s == step for n, s, step in zip(size, stride, _row_major(size)))
        if begin is not None and contiguous:
            return FileTensor(self._path, begin + offset * item, dtype, tuple(size))
        flat = np.frombuffer(self._archive.read(member), NUMPY_TYPES[dtype])[offset:]
        strides = tuple(s * item for s in stride)
        return ArrayTensor(np.lib.stride_tricks.as_strided(flat, size, strides).copy(), dtype)


def _row_major(size: tuple[int, ...]) -> list[int]:
    steps, step = [], 1
    for n in reversed(size):
        steps.append(step)
        step *= n
    return steps[::-1]


def _read_zip(path: str) -> Any:
    with open_zip(path) as archive:
        index = next((n for n in archive.namelist() if n.endswith("/data.pkl") or n == "data.pkl"), None)
        if index is None:
            raise ExportError(f"{path}: no data.pkl in the archive, so no torch.save file (TorchScript? {WAY_OUT})")
        root = index.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ExportError(f"{path}: big-endian; {WAY_OUT} on a little-endian machine")
        if any(n.startswith(f"{root}code/") for n in archive.namelist()):
            raise ExportError(f"{path}: a TorchScript program, not a state_dict; {WAY_OUT}")
        try:
            return _Unpickler(path, archive.read(index), _Storages(path, archive, root)).load()
        except ExportError:
            raise
        except Exception as error:  # whatever a damaged pickle makes of itself
            raise ExportError(
                f"{path}: data.pkl cannot be read ({type(error).__name__}: {error}); {WAY_OUT}"
            ) from error


def _read_legacy(path: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ExportError(
            f"{path}: not a zip, so either damaged or torch's form from before 1.6, which only torch can "
            f"open: apt-get install python3-torch, or {WAY_OUT} with a newer torch"
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ExportError(f"{path}: torch's weights-only reader refuses it ({error}); {WAY_OUT}") from error
    return _from_torch(torch, state)


def _from_torch(torch: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _from_torch(torch, v) for key, v in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().contiguous()
    if value.dtype == torch.bfloat16:
        return ArrayTensor(value.view(torch.int16).numpy().view(np.uint16), "BF16")
    values = value.numpy()
    return ArrayTensor(values, type_name(values.dtype))
