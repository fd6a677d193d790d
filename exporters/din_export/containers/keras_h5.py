"""Keras 2's .h5: groups of layers whose attribute `weight_names` has the variables' names."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ExportError
from ..tensors import ArrayTensor, Tensor, type_name


class H5Tensor(Tensor):
    """A dataset, read row by row."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(type_name(dataset.dtype), dataset.shape)
        self._dataset = dataset

    def row_range(self, begin: int, end: int) -> np.ndarray:
        if not self.shape:
            return np.asarray(self._dataset[()]).reshape(1)
        return self._dataset[begin:end]


def read(path: str) -> dict[str, Tensor]:
    try:
        import h5py
    except ImportError as error:
        raise ExportError(
            f"{path}: .h5 needs h5py: apt-get install python3-h5py, or save the weights as .npz: "
            "np.savez('weights.npz', **{w.name: w.numpy() for w in model.weights})"
        ) from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ExportError(f"{path}: not an HDF5 file, or a damaged one ({error})") from error
    root = file["model_weights"] if "model_weights" in file else file
    if "layer_names" not in root.attrs:
        if "layers" in root:
            raise ExportError(
                f"{path}: Keras 3's .weights.h5, which has no names of variables; save with tf_keras "
                "(Keras 2), or np.savez('weights.npz', **{w.path: w.numpy() for w in model.weights})"
            )
        return _datasets(h5py, path, root)
    tensors: dict[str, Tensor] = {}
    for layer in root.attrs["layer_names"]:
        group = root[_text(layer)]
        for name in group.attrs["weight_names"]:
            tensors[_text(name)] = _tensor(path, _text(name), group[_text(name)])
    return tensors


def _datasets(h5py: Any, path: str, root: Any) -> dict[str, Tensor]:
    """A plain HDF5 file: every dataset under its own path."""
    found: dict[str, Tensor] = {}
    root.visititems(
        lambda name, item: found.update({name: _tensor(path, name, item)}) if isinstance(item, h5py.Dataset) else None
    )
    return found


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _tensor(path: str, name: str, dataset: Any) -> Tensor:
    if type_name(dataset.dtype) is None:
        raise ExportError(f"{path}: {name}: type {dataset.dtype} is not supported")
    small = dataset.size * dataset.dtype.itemsize <= 1 << 20
    return ArrayTensor(np.asarray(dataset[()])) if small else H5Tensor(dataset)
