"""Writes a snapshot (model_loader/FORMAT.md): under a temporary name, the manifest last, fsync, rename."""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .errors import ExportError
from .tensors import FLOATS, Tensor

CHUNK_BYTES = 8 << 20
CACHE_LINE = 64
WEIGHTS, SPEC, GOLDEN, MANIFEST = "weights.safetensors", "model.json", "golden.jsonl", "manifest.json"

Progress = Callable[[str, int, int], None]  # tensor, bytes done, bytes of all


class _Digested:
    """A file that is hashed chunk by chunk while it is written."""

    def __init__(self, directory: str, name: str) -> None:
        self.name, self.size, self.chunks = name, 0, []
        self._file = open(os.path.join(directory, name), "xb")
        self._chunk, self._filled = hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B") if not isinstance(data, bytes) else memoryview(data)
        self._file.write(view)
        self.size += len(view)
        while len(view):
            part = view[: CHUNK_BYTES - self._filled]
            self._chunk.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == CHUNK_BYTES:
                self._close_chunk()

    def close(self) -> None:
        self._file.close()

    def _close_chunk(self) -> None:
        self.chunks.append(self._chunk.digest())
        self._chunk, self._filled = hashlib.sha256(), 0

    def finish(self) -> dict[str, Any]:
        """The manifest's entry."""
        if self._filled:
            self._close_chunk()
        self._file.flush()
        os.fsync(self._file.fileno())
        root = hashlib.sha256(b"".join(self.chunks)).hexdigest()
        return {"name": self.name, "size": self.size, "chunks": [c.hex() for c in self.chunks], "root": root}


def _order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Large powers of two that divide the size first, so that every tensor is aligned to its element."""

    def alignment(name: str) -> int:
        size = tensors[name].nbytes
        return CACHE_LINE if size == 0 else min(CACHE_LINE, size & -size)

    return sorted(tensors, key=lambda n: (-alignment(n), n))


def _write_weights(file: _Digested, tensors: Mapping[str, Tensor], progress: Progress) -> None:
    names, offset, header = _order(tensors), 0, {}
    for name in names:
        tensor = tensors[name]
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % CACHE_LINE)
    file.write(struct.pack("<Q", len(text)) + text)
    done = 0
    for name in names:
        begin = 0
        for block in tensors[name].blocks():
            _check_finite(name, tensors[name], block, begin)
            file.write(np.ascontiguousarray(block).data)
            begin += len(block)
            done += block.nbytes
            progress(name, done, offset)


def _check_finite(name: str, tensor: Tensor, block: np.ndarray, begin: int) -> None:
    if tensor.dtype not in FLOATS:
        return
    wrong = (block & 0x7F80) == 0x7F80 if tensor.dtype == "BF16" else ~np.isfinite(block)
    if wrong.any():
        at = np.argwhere(wrong)[0].tolist()
        if at:
            at[0] += begin
        raise ExportError(f"tensor {name}: not a finite number at {at}; the training diverged, or the file is damaged")


def manifest_bytes(files: list[dict[str, Any]], unverified: bool) -> bytes:
    """The one canonical form."""
    body = {"format": 1, "unverified": unverified, "files": sorted(files, key=lambda f: f["name"])}
    text = json.dumps(body, separators=(",", ":"))[:-1] + ","
    return f'{text}"digest":"{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()


class SnapshotWriter:
    """The files of one snapshot, in a temporary directory beside `directory` until `publish`."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        parent, name = os.path.split(self.directory)
        if os.path.lexists(self.directory) and (not os.path.isdir(self.directory) or os.listdir(self.directory)):
            raise ExportError(f"{directory}: is there and not empty; a snapshot is never changed, give a new directory")
        try:
            os.makedirs(parent, exist_ok=True)
            self.temporary = os.path.join(parent, f".tmp-{name}-{os.getpid()}")
            shutil.rmtree(self.temporary, ignore_errors=True)
            os.mkdir(self.temporary)
        except OSError as error:
            raise ExportError(f"{directory}: {error.strerror}") from error
        self._files: list[dict[str, Any]] = []

    def path(self, name: str) -> str:
        return os.path.join(self.temporary, name)

    def write_model(self, spec: dict[str, Any], tensors: Mapping[str, Tensor], progress: Progress) -> None:
        self._write(SPEC, (json.dumps(spec, indent=1, ensure_ascii=False) + "\n").encode())
        with contextlib.closing(_Digested(self.temporary, WEIGHTS)) as file:
            _write_weights(file, tensors, progress)
            self._files.append(file.finish())

    def write_golden(self, cases: list[dict[str, Any]]) -> None:
        self._write(GOLDEN, "".join(json.dumps(c, ensure_ascii=False) + "\n" for c in cases).encode())

    def _write(self, name: str, data: bytes) -> None:
        with contextlib.closing(_Digested(self.temporary, name)) as file:
            file.write(data)
            self._files.append(file.finish())

    def seal(self, unverified: bool) -> str:
        """Writes the manifest; returns its digest."""
        data = manifest_bytes(self._files, unverified)
        with open(self.path(MANIFEST), "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(self.temporary)
        return json.loads(data)["digest"]

    def publish(self) -> None:
        """The one moment in which the snapshot is there."""
        try:
            os.rename(self.temporary, self.directory)
        except OSError as error:
            raise ExportError(f"{self.directory}: {error.strerror}; another publisher was faster") from error
        _sync_directory(os.path.dirname(self.directory))

    def discard(self) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
