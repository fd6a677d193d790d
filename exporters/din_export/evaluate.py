"""A snapshot's scores in numpy and float64, straight from the ModelSpec's meaning (proto/model_spec.proto).

Written for nothing but being right: it shares no code with the importers, nothing is folded, and the C++ server's
reference is a second implementation of the same text.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .request import ZERO_ROW, Decoded, Decoder
from .tensors import Tensor

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    out = np.empty_like(x)
    positive = x >= 0
    out[positive] = 1 / (1 + np.exp(-x[positive]))
    e = np.exp(x[~positive])
    out[~positive] = e / (1 + e)
    return out


class Evaluator:
    """Scores of golden cases. Weights are read once, of tables only the rows that a case needs."""

    def __init__(self, spec: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.spec, self.tensors = spec, tensors
        self.decoder = Decoder(spec, tensors)
        self.tables = {t["name"]: t for t in spec.get("tables", [])}
        self.slots = {s["name"]: s for s in spec.get("slots", [])}
        self.features = {f["name"]: f for f in spec.get("features", [])}
        self._weights: dict[str, Array] = {}

    def scores(self, case: dict[str, Any]) -> Array:
        """One per candidate."""
        return sigmoid(self.logits(case))

    def logits(self, case: dict[str, Any]) -> Array:
        return _Forward(self, self.decoder.decode(case)).logits()

    def weight(self, name: str) -> Array:
        if name not in self._weights:
            self._weights[name] = self.tensors[name].float64()
        return self._weights[name]

    def table_rows(self, table: str, rows: list[int]) -> Array:
        t = self.tables[table]
        name = t.get("tensor") or f"table.{table}"
        tensor = self.tensors[name]
        at = np.asarray(rows, np.int64).reshape(-1)
        if len(at) == 0:
            return np.zeros((0, t["dim"]))
        rows_there = np.where(at == ZERO_ROW, 0, at + int(t.get("row_offset", 0)))
        out = tensor.gather(rows_there)
        if tensor.dtype == "I8":  # the float nearest to the product with the row's scale
            scaled = out * self.tensors[f"{name}.scale"].gather(rows_there)[:, None]
            out = scaled.astype(np.float32).astype(np.float64)
        out[at == ZERO_ROW] = 0
        return out

    # --- Layers: x is [..., width] ---------------------------------------------------------------------------------

    def linear(self, at: str, x: Array, bias: bool) -> Array:
        y = x @ self.weight(f"{at}.w").T
        return y + self.weight(f"{at}.b") if bias else y

    def batch_norm(self, at: str, bn: dict[str, Any], x: Array) -> Array:
        y = (x - self.weight(f"{at}.mean")) / np.sqrt(self.weight(f"{at}.var") + bn["eps"])
        return y * self.weight(f"{at}.gamma") + self.weight(f"{at}.beta") if bn.get("affine") else y

    def activate(self, at: str, activation: dict[str, Any], x: Array) -> Array:
        kind = activation["kind"]
        if kind == "DICE":
            return self.dice(at, activation["dice"], x)
        if kind in ("PRELU", "LEAKY_RELU"):
            slope = self.weight(f"{at}.alpha") if kind == "PRELU" else activation.get("leaky_slope", 0)
            return np.where(x < 0, x * slope, x)
        return {
            "NONE": lambda v: v,
            "RELU": lambda v: np.maximum(v, 0),
            "SIGMOID": sigmoid,
            "TANH": np.tanh,
            "SILU": lambda v: v * sigmoid(v),
        }[kind](x)

    def dice(self, at: str, dice: dict[str, Any], x: Array) -> Array:
        z = x
        if dice["statistics"] == "RUNNING":
            z = self.batch_norm(at, dice, x)
            if dice.get("slope"):
                z = z * self.weight(f"{at}.slope")
        elif dice["statistics"] == "PER_ROW":
            centred = x - x.mean(axis=-1, keepdims=True)
            z = centred / np.sqrt((centred**2 + dice["eps"]).sum(axis=-1, keepdims=True))
        p = sigmoid(z)
        alpha = self.weight(f"{at}.alpha") if dice["alpha"] == "ALPHA_TENSOR" else dice.get("alpha_value", 0)
        return p * x + (1 - p) * alpha * x

    def layers(self, prefix: str, layers: list[dict[str, Any]], x: Array) -> Array:
        for i, layer in enumerate(layers):
            at = f"{prefix}.l{i}"
            x = self.linear(at, x, layer.get("bias", False))
            if "bn" in layer:
                x = self.batch_norm(f"{at}.bn", layer["bn"], x)
            x = self.activate(f"{at}.act", layer["activation"], x)
            if "out_bn" in layer:
                x = self.batch_norm(f"{at}.out_bn", layer["out_bn"], x)
        return x


class _Forward:
    """One request."""

    def __init__(self, model: Evaluator, request: Decoded) -> None:
        self.m, self.spec, self.request = model, model.spec, request
        self.vectors: dict[str, Array] = {}  # [1 or candidates, width]

    def logits(self) -> Array:
        for name, slot in self.m.slots.items():
            if self.scope(slot) != "SEQUENCE":
                self.vectors[name] = self.slot(slot)
        for g, attention in enumerate(self.spec.get("attentions", [])):
            self.vectors[attention["name"]] = self.attention(g, attention)
        for pool in self.spec.get("sequence_pools", []):
            self.vectors[pool["name"]] = self.sequence_pool(pool)
        found = [self.interaction(entry) for entry in self.spec.get("interactions", [])]
        for entry, value in zip(self.spec.get("interactions", []), found):
            self.vectors[entry["name"]] = value
        pre = [self.network(f"pre{p}", network) for p, network in enumerate(self.spec.get("pre_towers", []))]
        for network, value in zip(self.spec.get("pre_towers", []), pre):
            self.vectors[network["name"]] = value
        tower = self.spec["tower"]
        logit = np.zeros(1)
        if tower.get("input"):
            z = self.m.linear("head", self.network("tower", tower), tower.get("head_bias", False))
            positive = tower.get("positive_class", 0)
            logit = z[:, positive] - z[:, 1 - positive] if tower["classes"] == 2 else z[:, 0]
        if tower.get("global_bias"):
            logit = logit + self.m.weight("bias.global")[0]
        for bias in tower.get("id_biases", []):
            logit = logit + self.m.table_rows(bias["table"], self.request.columns[bias["feature"]])[:, 0]
        for ref in tower.get("wide", []):
            logit = logit + self.vector(ref).sum(axis=1)
        return np.broadcast_to(logit, (self.request.candidates,)).copy()

    # --- Slots -----------------------------------------------------------------------------------------------------

    def scope(self, slot: dict[str, Any]) -> str:
        op = next(v for k, v in slot.items() if k != "name")
        return self.m.features[op.get("feature") or op["value"]]["scope"]

    def slot(self, slot: dict[str, Any]) -> Array:
        """[rows, width]"""
        columns = self.request.columns
        if "embed" in slot:
            return self.m.table_rows(slot["embed"]["table"], columns[slot["embed"]["feature"]])
        if "dense" in slot:
            width = self.m.features[slot["dense"]["feature"]]["width"]
            return np.asarray(columns[slot["dense"]["feature"]], np.float64).reshape(-1, width)
        if "scaled" in slot:
            op = slot["scaled"]
            values = np.asarray(columns[op["value"]], np.float64).reshape(-1, 1)
            rows = columns[op["feature"]] if op.get("feature") else [0] * len(values)
            return values * self.m.table_rows(op["table"], rows)
        return np.array([self.pool(slot["pool"], entry) for entry in columns[slot["pool"]["feature"]]]).reshape(
            -1, self.m.tables[slot["pool"]["table"]]["dim"]
        )

    def pool(self, pool: dict[str, Any], entries: list[tuple[int, bool]]) -> Array:
        rows = [row for row, padding in entries if not (padding and pool.get("skip_padding"))]
        if not rows:
            empty = 0 if pool["kind"] == "SUM" else pool.get("empty_value", 0)
            return np.full(self.m.tables[pool["table"]]["dim"], float(empty))
        vectors = self.m.table_rows(pool["table"], rows)
        if pool["kind"] == "MAX":
            return vectors.max(axis=0)
        total = vectors.sum(axis=0)
        return total / (len(rows) + pool.get("divisor_epsilon", 0)) if pool["kind"] == "MEAN" else total

    def concat(self, names: list[str]) -> Array:
        return np.concatenate([self.slot(self.m.slots[n]) for n in names], axis=1)

    # --- Attention -------------------------------------------------------------------------------------------------

    def attention(self, g: int, a: dict[str, Any]) -> Array:
        n, key = self.request.candidates, self.concat(a["key"])  # [positions, D]
        width = key.shape[1]
        parts = [np.broadcast_to(self.vectors[s], (n, self.vectors[s].shape[1])) for s in a["query"]]
        query = np.concatenate(parts, axis=1)
        query = np.pad(query, ((0, 0), (0, width - query.shape[1])))
        pooled = self.weights(g, a, query, key) @ key
        post = a.get("post", {})
        if "bn" in post:
            pooled = self.m.batch_norm(f"att{g}.post.bn", post["bn"], pooled)
        return self.m.linear(f"att{g}.post", pooled, post.get("bias", False)) if post.get("units") else pooled

    def weights(self, g: int, a: dict[str, Any], query: Array, key: Array) -> Array:
        """[candidates, positions]"""
        n, positions = len(query), len(key)
        if self.request.empty[a["sequence"]]:
            mean = a["empty"] == "EMPTY_POSITIONS_MEAN"
            return np.full((n, positions), 1 / positions if mean else 0.0) if positions else np.zeros((n, 0))
        q = np.broadcast_to(query[:, None, :], (n, positions, key.shape[1]))
        k = np.broadcast_to(key[None, :, :], q.shape)
        pieces = {"Q": q, "K": k, "Q_MINUS_K": q - k, "K_MINUS_Q": k - q, "Q_TIMES_K": q * k}
        x = np.concatenate([pieces[p] for p in a["input"]], axis=-1)
        x = self.m.layers(f"att{g}", a["layers"], x)
        score = self.m.linear(f"att{g}.out", x, a.get("out_bias", False))[..., 0]
        if a["out_activation"] == "SIGMOID":
            score = sigmoid(score)
        if a["scale"] == "SCALE_INVERSE_SQRT_WIDTH":
            score = score / np.sqrt(key.shape[1])
        if a["normalise"] == "NORMALISE_SIGMOID":
            return sigmoid(score)
        if a["normalise"] == "NORMALISE_SOFTMAX":
            e = np.exp(score - score.max(axis=1, keepdims=True))
            return e / e.sum(axis=1, keepdims=True)
        return score

    def sequence_pool(self, pool: dict[str, Any]) -> Array:
        key = self.concat(pool["key"])
        if self.request.empty[pool["sequence"]]:
            return np.zeros((1, key.shape[1]))
        total = key.sum(axis=0, keepdims=True)
        return total / (len(key) + pool.get("divisor_epsilon", 0)) if pool["kind"] == "MEAN" else total

    def interaction(self, entry: dict[str, Any]) -> Array:
        vectors = [self.vector(ref) for ref in entry["vectors"]]
        products = [a * b for i, a in enumerate(vectors) for b in vectors[i + 1 :]]
        if entry["kind"] == "BI_INTERACTION":
            return sum(products[1:], products[0])
        inner = [p.sum(axis=1) for p in products]
        return np.stack(np.broadcast_arrays(*inner), axis=1)

    # --- Networks --------------------------------------------------------------------------------------------------

    def vector(self, ref: dict[str, Any]) -> Array:
        return self.vectors[ref["name"]][:, ref.get("begin", 0) : ref.get("end") or None]

    def network(self, prefix: str, network: dict[str, Any]) -> Array:
        terms = [
            self.vector(t["a"]) * self.vector(t["b"]) if "b" in t else self.vector(t["a"]) for t in network["input"]
        ]
        rows = max(len(t) for t in terms)
        x = np.concatenate([np.broadcast_to(t, (rows, t.shape[1])) for t in terms], axis=1)
        if "in_bn" in network:
            x = self.m.batch_norm(f"{prefix}.in_bn", network["in_bn"], x)
        return self.m.layers(prefix, network.get("layers", []), x)
