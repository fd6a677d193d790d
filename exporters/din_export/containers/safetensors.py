"""safetensors: 8 bytes of header length, a JSON header, the data."""
from __future__ import annotations

import json
import math
import struct

from ..errors import ExportError
from ..strict_json import parse_json
from ..tensors import NUMPY_TYPES, FileTensor, Tensor, file_size

MAX_HEADER = 100 << 20


def read(path: str) -> dict[str, Tensor]:
    size = file_size(path)
    with open(path, "rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ExportError(f"{path}: {size} bytes are too short for a safetensors header")
        if prefix[:2] == b"PK":
            raise ExportError(f"{path}: this is a zip archive, so a .pt or .npz under another name; rename it")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER, size - 8):
            raise ExportError(
                f"{path}: header of {length} bytes, but {size - 8} are left in the file; it is cut or no "
                "safetensors file"
            )
        text = file.read(length)
    try:
        header = parse_json(text.decode())
    except (UnicodeDecodeError, json.JSONDecodeError, ValueError) as error:
        raise ExportError(f"{path}: the header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise ExportError(f"{path}: the header is not a JSON object")
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, info, 8 + length, size) for name, info in header.items()}


def _tensor(path: str, name: str, info: object, data_begin: int, size: int) -> Tensor:
    try:
        dtype, shape, (begin, end) = info["dtype"], [int(n) for n in info["shape"]], info["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise ExportError(f"{path}: tensor {name}: not an object of dtype, shape and data_offsets") from error
    if dtype not in NUMPY_TYPES:
        raise ExportError(f"{path}: tensor {name}: type {dtype} is not supported; accepted: {', '.join(NUMPY_TYPES)}")
    expected = math.prod(shape) * NUMPY_TYPES[dtype].itemsize
    if min(shape, default=0) < 0 or end - begin != expected:
        raise ExportError(
            f"{path}: tensor {name}: {dtype} {shape} is {expected} bytes, data_offsets "
            f"[{begin}, {end}] are {end - begin}"
        )
    if begin < 0 or data_begin + end > size:
        raise ExportError(
            f"{path}: tensor {name}: its data ends at byte {data_begin + end}, the file at {size}; it is cut"
        )
    return FileTensor(path, data_begin + begin, dtype, tuple(shape))
