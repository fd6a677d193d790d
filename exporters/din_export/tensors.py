"""Tensors that stay where they are until somebody wants their rows.

A table of many gigabytes is never in memory at once: it is checked, hashed and written block by block. Types carry
safetensors' names; BF16, which numpy does not have, travels as uint16.
"""
from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator

import numpy as np

from .errors import ExportError

BLOCK_BYTES = 8 << 20
LARGE_BYTES = 64 << 20  # what is read only in blocks

NUMPY_TYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
FLOATS = ("F64", "F32", "F16", "BF16")


def type_name(dtype: np.dtype) -> str | None:
    """safetensors' name of a numpy type; None when there is none."""
    plain = dtype.newbyteorder("<")
    return next((name for name, known in NUMPY_TYPES.items() if known == plain and name != "BF16"), None)


def to_float64(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


class Tensor:
    """A row-major array. `row_range` is all that a kind of tensor has to implement."""

    def __init__(self, dtype: str, shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.shape = tuple(int(n) for n in shape)

    def row_range(self, begin: int, end: int) -> np.ndarray:
        """Rows [begin, end) along the first axis; of a 0-d tensor the one value."""
        raise NotImplementedError

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        return NUMPY_TYPES[self.dtype].itemsize * math.prod(self.shape[1:])

    @property
    def nbytes(self) -> int:
        return self.row_bytes * self.rows

    def read(self) -> np.ndarray:
        return self.row_range(0, self.rows).reshape(self.shape)

    def float64(self) -> np.ndarray:
        return to_float64(self.read(), self.dtype)

    def blocks(self) -> Iterator[np.ndarray]:
        step = max(1, BLOCK_BYTES // max(1, self.row_bytes))
        for begin in range(0, self.rows, step):
            yield self.row_range(begin, min(begin + step, self.rows))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """These rows in float64, [len(rows), ...]."""
        if self.nbytes <= BLOCK_BYTES:
            return self.float64()[rows]
        distinct, where = np.unique(rows, return_inverse=True)
        found = [self.row_range(int(r), int(r) + 1) for r in distinct]
        return to_float64(np.concatenate(found), self.dtype)[where]

    def describe(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class ArrayTensor(Tensor):
    """A small tensor in memory."""

    def __init__(self, values: np.ndarray, dtype: str | None = None) -> None:
        dtype = dtype or type_name(values.dtype)
        assert dtype is not None, values.dtype
        super().__init__(dtype, values.shape)
        self.values = np.ascontiguousarray(values, NUMPY_TYPES[dtype])

    def row_range(self, begin: int, end: int) -> np.ndarray:
        return self.values[begin:end] if self.shape else self.values.reshape(1)


class FileTensor(Tensor):
    """Contiguous little-endian values at a place in a file."""

    def __init__(self, path: str, offset: int, dtype: str, shape: tuple[int, ...]) -> None:
        super().__init__(dtype, shape)
        self.path, self.offset = path, offset

    def row_range(self, begin: int, end: int) -> np.ndarray:
        count = (end - begin) * self.row_bytes
        with open(self.path, "rb") as file:
            file.seek(self.offset + begin * self.row_bytes)
            data = bytearray(count)
            view, got = memoryview(data), 0
            while got < count:
                n = file.readinto(view[got:])
                if not n:
                    raise ExportError(
                        f"{self.path}: ends at byte {self.offset + begin * self.row_bytes + got}, inside "
                        f"a tensor of {self.describe()}; the file is cut"
                    )
                got += n
        return np.frombuffer(data, NUMPY_TYPES[self.dtype]).reshape((end - begin,) + self.shape[1:])


class MappedTensor(Tensor):
    """Another tensor, changed row by row while it is read: float64 rows in, values of `dtype` out."""

    def __init__(
        self, base: Tensor, dtype: str, change: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(dtype, base.shape if shape is None else shape)
        self.base, self.change = base, change

    def row_range(self, begin: int, end: int) -> np.ndarray:
        rows = to_float64(self.base.row_range(begin, end), self.base.dtype)
        return self.change(rows).astype(NUMPY_TYPES[self.dtype])


def reshaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same values under another shape with as many rows, such as [n] as [n, 1]."""
    if tensor.shape == tuple(shape):
        return tensor
    if isinstance(tensor, FileTensor):
        return FileTensor(tensor.path, tensor.offset, tensor.dtype, shape)
    if isinstance(tensor, ArrayTensor):
        return ArrayTensor(tensor.values.reshape(shape), tensor.dtype)
    return MappedTensor(tensor, "F32", lambda rows: rows.reshape((len(rows),) + tuple(shape[1:])), shape)


def as_float32(tensor: Tensor) -> Tensor:
    """F64 becomes F32, which is what the server computes in; other floats stay as they are."""
    return MappedTensor(tensor, "F32", lambda rows: rows) if tensor.dtype == "F64" else tensor


def equal(a: Tensor, b: Tensor) -> bool:
    """The same type, shape and bytes."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return all(x.tobytes() == y.tobytes() for x, y in zip(a.blocks(), b.blocks(), strict=True))


def file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from error
