"""Weights in: from a file to named tensors, without running anything that the file holds."""
from __future__ import annotations

import os
import zipfile

from ..errors import ExportError
from ..tensors import Tensor, file_size
from . import keras_h5, npz, safetensors, torch_pt

# Suffix -> reader(path) -> {name: tensor}.
READERS = {
    ".safetensors": safetensors.read,
    ".npz": npz.read,
    ".pt": torch_pt.read,
    ".pth": torch_pt.read,
    ".h5": keras_h5.read,
    ".hdf5": keras_h5.read,
}

# What people have instead, and the way out.
ELSEWHERE = {
    ".pkl": "a pickle runs code when it is opened; save the state_dict with safetensors.torch.save_file or torch.save",
    ".bin": "name it .pt when it is torch.save(model.state_dict()), or save it as .safetensors",
    ".ckpt": "TensorFlow 1: np.savez('weights.npz', **{v.name: sess.run(v) for v in tf.global_variables()}); PyTorch "
    "Lightning: torch.save(torch.load('x.ckpt')['state_dict'], 'weights.pt')",
    ".index": "a TensorFlow checkpoint: np.savez('weights.npz', **{n: reader.get_tensor(n) for n in "
    "tf.train.load_checkpoint(path).get_variable_to_shape_map()}) with reader = tf.train.load_checkpoint(path)",
    ".pdparams": "Paddle: np.savez('weights.npz', **{k: v.numpy() for k, v in paddle.load('x.pdparams').items()})",
    ".keras": "Keras 3: model.save_weights('weights.h5') under tf_keras (Keras 2), or np.savez by variable name",
    ".onnx": "a graph, not weights: save the state_dict of the model that it was made from",
}


def read_weights(path: str) -> dict[str, Tensor]:
    """Every tensor of the file, none of it read yet beyond what the container's index needs."""
    size = file_size(path)
    reader = next((r for s, r in READERS.items() if path.lower().endswith(s)), None)
    if reader is None and _holds_state_dict(path):  # FuxiCTR's DIN.model, a .bin, a .ckpt: torch.save under its own name
        reader = torch_pt.read
    if reader is None:
        way_out = next((f"; {text}" for s, text in ELSEWHERE.items() if path.lower().endswith(s)), "")
        raise ExportError(f"{path}: weights come as {', '.join(READERS)}{way_out}")
    if size == 0:
        raise ExportError(f"{path}: the file is empty")
    tensors = reader(path)
    if not tensors:
        raise ExportError(f"{path}: holds no tensors")
    return tensors


def _holds_state_dict(path: str) -> bool:
    """A zip of torch.save, whatever its name."""
    if not os.path.isfile(path) or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(n.endswith("/data.pkl") for n in archive.namelist())
