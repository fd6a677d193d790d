"""Layers: from a framework's tensors to a network's places in the snapshot.

torch's Sequentials are walked, not counted: the integer suffixes are sorted, and each is what its keys say it is
(Linear, BatchNorm, Dice, PReLU). Gaps are dropout and activations without parameters, whose names the description has.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .errors import ExportError
from .model import Model, float32

TORCH_BN_EPS = 1e-5
KERAS_BN_EPS = 1e-3


@dataclass(frozen=True)
class Activation:
    """What a layer ends with; `spec` is the proto's message."""

    kind: str
    leaky_slope: float = 0.0
    dice: dict[str, Any] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        out: dict[str, Any] = {"kind": self.kind}
        if self.kind == "LEAKY_RELU":
            out["leaky_slope"] = self.leaky_slope
        if self.kind == "DICE":
            out["dice"] = dict(self.dice)
        return out


NONE = Activation("NONE")
RELU = Activation("RELU")
SIGMOID = Activation("SIGMOID")
SILU = Activation("SILU")
PRELU = Activation("PRELU")
TANH = Activation("TANH")
LEAKY_DEFAULT = Activation("LEAKY_RELU", 0.01)  # torch's slope


def dice(statistics: str, eps: float = 0, **more: Any) -> Activation:
    how = {"statistics": statistics, **({"eps": eps} if eps else {}), "alpha": "ALPHA_TENSOR", **more}
    return Activation("DICE", dice=how)


@dataclass
class LayerSource:
    """The names of one layer's tensors in the checkpoint; "" where there is none."""

    weight: str
    bias: str = ""
    bn: str = ""  # prefix of BatchNorm
    act: str = ""  # prefix of what the activation has
    units: int = 0


@dataclass(frozen=True)
class Style:
    """How a framework lays out and names what a layer has."""

    transposed: bool = False  # weights are [in, out]
    bn_eps: float = TORCH_BN_EPS
    mean: str = ".running_mean"
    var: str = ".running_var"
    gamma: str = ".weight"
    beta: str = ".bias"


TORCH = Style()
TENSORFLOW = Style(True, KERAS_BN_EPS, "/moving_mean", "/moving_variance", "/gamma", "/beta")


class LayerReader:
    """Moves layers from a checkpoint to a model."""

    def __init__(self, checkpoint: Checkpoint, model: Model, style: Style) -> None:
        self.checkpoint, self.model, self.style = checkpoint, model, style

    def values(self, name: str, shape: tuple[int, ...], place: str, why: str) -> np.ndarray:
        """A small tensor in float64."""
        values = self.checkpoint.take(name, shape, place, why).float64()
        if not np.isfinite(values).all():
            at = np.argwhere(~np.isfinite(values))[0]
            raise ExportError(f"tensor {name}: {values[tuple(at)]} at {at.tolist()}, expected finite numbers")
        return values

    def vector(self, name: str, units: int, place: str, why: str) -> np.ndarray:
        """[units], also where the framework keeps it as [units, 1] or [1, units]."""
        shape: tuple[int, ...] = (units,)
        if name in self.checkpoint and self.checkpoint.shape(name) in ((units, 1), (1, units)):
            shape = self.checkpoint.shape(name)
        return self.values(name, shape, place, why).reshape(units)

    def linear(self, weight: str, bias: str, n_in: int, n_out: int, place: str, why: str) -> None:
        shape = (n_in, n_out) if self.style.transposed else (n_out, n_in)
        values = self.values(weight, shape, f"{place}.w", why)
        self.model.put(f"{place}.w", float32(values.T if self.style.transposed else values))
        if bias:
            self.model.put(f"{place}.b", float32(self.vector(bias, n_out, f"{place}.b", why)))

    def statistics(self, prefix: str, units: int, place: str, why: str, affine: bool) -> None:
        """Mean and variance, and gamma and beta where there are some."""
        names = {"mean": self.style.mean, "var": self.style.var}
        if affine:
            names.update(gamma=self.style.gamma, beta=self.style.beta)
        for part, suffix in names.items():
            values = self.vector(prefix + suffix, units, f"{place}.{part}", why)
            if part == "var" and (values < 0).any():
                raise ExportError(
                    f"tensor {prefix + suffix}: {values.min()} at [{values.argmin()}]; a variance is not negative"
                )
            self.model.put(f"{place}.{part}", float32(values))
        self.checkpoint.ignore_matching("^" + re.escape(prefix) + r"\.num_batches_tracked$", "a counter of training")

    def batch_norm(self, prefix: str, units: int, place: str, why: str) -> dict[str, Any]:
        """The proto's BatchNorm; affine where the checkpoint has gamma."""
        affine = prefix + self.style.gamma in self.checkpoint
        self.statistics(prefix, units, place, why, affine)
        return {"eps": self.style.bn_eps, "affine": affine}

    def alpha(self, name: str, units: int, place: str, why: str) -> None:
        """One slope per unit, or one for all."""
        if name in self.checkpoint and self.checkpoint.shape(name) in ((), (1,)) and units != 1:
            values = self.values(name, self.checkpoint.shape(name), place, why).reshape(1)
        elif name in self.checkpoint and len(self.checkpoint.shape(name)) == 2 and 1 not in self.checkpoint.shape(name):
            raise ExportError(
                f"tensor {name}: {list(self.checkpoint.shape(name))} is a slope per (position, unit); such a "
                "PReLU depends on the order of the behaviours and is outside the family; retrain with "
                "shared_axes=[1]"
            )
        else:
            values = self.vector(name, units, place, why)
        self.model.put(place, float32(values))

    def layer(self, source: LayerSource, n_in: int, act: Activation, place: str, why: str) -> dict[str, Any]:
        """One layer's tensors to `place`; returns the proto's Layer."""
        self.linear(source.weight, source.bias, n_in, source.units, place, why)
        out: dict[str, Any] = {"units": source.units, "bias": bool(source.bias)}
        if source.bn:
            out["bn"] = self.batch_norm(source.bn, source.units, f"{place}.bn", why)
        out["activation"] = act.spec()
        if act.kind == "PRELU":
            self.alpha(source.act, source.units, f"{place}.act.alpha", why)
        return out


# --- torch.nn.Sequential ------------------------------------------------------------------------------------------


@dataclass
class Module:
    prefix: str
    kind: str  # linear, bn, dice, prelu
    keys: set[str]


def classify(prefix: str, keys: dict[str, tuple[int, ...]]) -> Module:
    names = set(keys)
    if "alpha" in names:
        kind = "dice"
    elif "running_mean" in names:
        kind = "bn"
    elif "weight" in names and len(keys["weight"]) == 2:
        kind = "linear"
    elif names == {"weight"} and len(keys["weight"]) <= 1:
        kind = "prelu"
    elif names == {"weight", "bias"}:
        raise ExportError(
            f"tensor {prefix}.weight {list(keys['weight'])}: a LayerNorm; DIN's family has none of them, so "
            "this server cannot reproduce the model; train with use_bn or without normalisation"
        )
    else:
        raise ExportError(
            f"tensors {', '.join(sorted(prefix + '.' + n for n in names))}: not a Linear, BatchNorm, Dice or PReLU"
        )
    return Module(prefix, kind, names)


def walk(checkpoint: Checkpoint, prefix: str) -> list[Module]:
    """The modules with parameters below `prefix`.<n>, in order."""
    groups: dict[int, dict[str, tuple[int, ...]]] = {}
    for name in checkpoint.names(prefix + "."):
        found = re.fullmatch(r"(\d+)\.(.+)", name[len(prefix) + 1 :])
        if found and found[2] != "num_batches_tracked":
            groups.setdefault(int(found[1]), {})[found[2]] = checkpoint.shape(name)
    for number, keys in groups.items():
        checkpoint.ignore_matching(
            rf"^{re.escape(prefix)}\.{number}(\.bn)?\.num_batches_tracked$", "a counter of training"
        )
    return [classify(f"{prefix}.{n}", groups[n]) for n in sorted(groups)]


def dice_from(reader: LayerReader, prefix: str, act: Activation, units: int, place: str, why: str) -> None:
    """torch's Dice module: alpha, and bn.* where it has statistics."""
    reader.alpha(prefix + ".alpha", units, f"{place}.act.alpha", why)
    if act.dice["statistics"] == "RUNNING":
        reader.statistics(prefix + ".bn", units, f"{place}.act", why, bool(act.dice.get("affine")))


@dataclass
class Sequential:
    """One torch Sequential: [Linear, [BatchNorm], activation] for each of `units`, then a Linear of `out_units`."""

    prefix: str
    units: list[int]
    activations: list[Activation]
    why: str
    batch_norm: bool = False
    bias: bool = True
    out_units: int = 0


def read_sequential(
    reader: LayerReader, modules: list[Module], source: Sequential, n_in: int, place: str, out_place: str = ""
) -> list[dict[str, Any]]:
    """Reads what the description promises; anything else is an error that names the tensor."""
    queue = list(modules)
    layers = []

    def next_module(kind: str, what: str) -> Module:
        if not queue or queue[0].kind != kind:
            got = f"{queue[0].prefix} is a {queue[0].kind}" if queue else "there are no more tensors"
            raise ExportError(f"{source.prefix}: expected {what} ({source.why}), but {got}")
        return queue.pop(0)

    for i, (units, act) in enumerate(zip(source.units, source.activations, strict=True)):
        at = f"{place}.l{i}"
        module = next_module("linear", f"layer {i}, a Linear of {units} units")
        layer = LayerSource(module.prefix + ".weight", module.prefix + ".bias" if source.bias else "", units=units)
        if source.batch_norm:
            layer.bn = next_module("bn", f"the BatchNorm of layer {i}").prefix
        if act.kind == "PRELU":
            layer.act = next_module("prelu", f"the PReLU of layer {i}").prefix + ".weight"
        layers.append(reader.layer(layer, n_in, act, at, source.why))
        if act.kind == "DICE" and act.dice["statistics"] != "IDENTITY":
            module = next_module("dice", f"the Dice of layer {i}")
            dice_from(reader, module.prefix, act, units, at, source.why)
        n_in = units
    if source.out_units:
        module = next_module("linear", f"the last Linear, of {source.out_units} units")
        reader.linear(
            module.prefix + ".weight",
            module.prefix + ".bias" if source.bias else "",
            n_in,
            source.out_units,
            out_place,
            source.why,
        )
    if queue:
        raise ExportError(
            f"{queue[0].prefix} is a {queue[0].kind} that the description does not account for ({source.why})"
        )
    return layers
