"""numpy's .npz: a zip of .npy files. Stored arrays are read in place; those of savez_compressed are unpacked."""
from __future__ import annotations

import zipfile
from collections.abc import Iterator

import numpy as np

from ..errors import ExportError
from ..tensors import BLOCK_BYTES, NUMPY_TYPES, ArrayTensor, FileTensor, Tensor, type_name
from .zip_member import data_offset, open_zip


class PackedTensor(Tensor):
    """A compressed array: unpacked from its beginning for every look, or once from end to end by `blocks`."""

    def __init__(self, path: str, member: str, header_bytes: int, dtype: str, shape: tuple[int, ...]) -> None:
        super().__init__(dtype, shape)
        self._path, self._member, self._header_bytes = path, member, header_bytes

    def _array(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, NUMPY_TYPES[self.dtype]).reshape((-1,) + self.shape[1:])

    def row_range(self, begin: int, end: int) -> np.ndarray:
        with open_zip(self._path) as archive, archive.open(self._member) as file:
            file.seek(self._header_bytes + begin * self.row_bytes)
            return self._array(file.read((end - begin) * self.row_bytes))

    def blocks(self) -> Iterator[np.ndarray]:
        step = max(1, BLOCK_BYTES // max(1, self.row_bytes)) * self.row_bytes
        with open_zip(self._path) as archive, archive.open(self._member) as file:
            file.seek(self._header_bytes)
            while data := file.read(step):
                yield self._array(data)


def read(path: str) -> dict[str, Tensor]:
    with open_zip(path) as archive:
        return {member.filename.removesuffix(".npy"): _tensor(path, archive, member) for member in archive.infolist()}


def _tensor(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Tensor:
    where = f"{path}: array {member.filename}"
    try:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(file)
            header_bytes = file.tell()
            if dtype.hasobject:
                raise ExportError(f"{where}: Python objects, which only a pickle can hold; save plain arrays")
            name = type_name(dtype)
            if name is None:
                raise ExportError(f"{where}: type {dtype} is not supported; save float32 or int64")
            offset = data_offset(archive, member)
            plain = not fortran and dtype.byteorder != ">"
            if offset is not None and plain:
                return FileTensor(path, offset + header_bytes, name, shape)
            if plain and member.file_size > BLOCK_BYTES:
                return PackedTensor(path, member.filename, header_bytes, name, shape)
            values = np.frombuffer(file.read(), dtype).reshape(shape, order="F" if fortran else "C")
            return ArrayTensor(values.astype(dtype.newbyteorder("<")), name)
    except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ExportError(f"{where}: not a .npy array ({error})") from error
