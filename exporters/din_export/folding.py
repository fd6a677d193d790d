"""Constants that meet a network's first Linear: they move into what is there, in float64."""
from __future__ import annotations

from typing import Any

import numpy as np

from .model import Model, float32
from .tensors import Tensor


def add_constant(model: Model, network: dict[str, Any], prefix: str, begin: int, constant: np.ndarray) -> None:
    """As if inputs [begin, begin + len(constant)) of the network at `prefix` were larger by `constant`."""
    end = begin + len(constant)
    if "in_bn" in network:
        mean = model.tensors[f"{prefix}.in_bn.mean"].float64()
        mean[begin:end] -= constant
        model.tensors[f"{prefix}.in_bn.mean"] = float32(mean)
        return
    holder, key, place = (
        (network["layers"][0], "bias", f"{prefix}.l0") if network["layers"] else (network, "head_bias", "head")
    )
    weight = model.tensors[f"{place}.w"].float64()
    bias = model.tensors[f"{place}.b"].float64() if holder.get(key) else np.zeros(len(weight))
    holder[key] = True
    model.tensors[f"{place}.b"] = float32(bias + weight[:, begin:end] @ constant)


def zero_rows(table: Tensor, limit: int = 3) -> list[int]:
    """The first rows that are zero in every component."""
    found: list[int] = []
    begin = 0
    for block in table.blocks():
        zero = ~(block.view(np.uint16) & 0x7FFF if table.dtype == "BF16" else block).reshape(len(block), -1).any(axis=1)
        found += (begin + np.flatnonzero(zero)).tolist()
        begin += len(block)
        if len(found) >= limit:
            break
    return found[:limit]
