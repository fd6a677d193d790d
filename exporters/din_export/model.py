"""A ModelSpec (proto/model_spec.proto, as JSON with the proto's field names) and its tensors while they are built."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .tensors import ArrayTensor, Tensor

# Where a framework has no limit: what the server takes of one list by default.
UNLIMITED = 16384

Term = dict[str, Any]


def float32(values: np.ndarray) -> ArrayTensor:
    return ArrayTensor(np.asarray(values, np.float64).astype(np.float32), "F32")


def int64(values: Iterable[int]) -> ArrayTensor:
    return ArrayTensor(np.asarray(list(values), np.int64), "I64")


class Model:
    def __init__(self, description: str) -> None:
        self.spec: dict[str, Any] = {"format": 1, "description": description}
        for field in (
            "id_maps",
            "tables",
            "side_tables",
            "features",
            "sequences",
            "slots",
            "attentions",
            "sequence_pools",
            "interactions",
            "pre_towers",
        ):
            self.spec[field] = []
        self.spec["tower"] = {}
        self.tensors: dict[str, Tensor] = {}
        self.widths: dict[str, int] = {}  # of every named vector

    def finished(self) -> dict[str, Any]:
        """The spec without empty lists."""
        return {key: value for key, value in self.spec.items() if value != []}

    def put(self, place: str, tensor: Tensor) -> None:
        assert place not in self.tensors, place
        self.tensors[place] = tensor

    def named(self, field: str, name: str) -> dict[str, Any] | None:
        return next((entry for entry in self.spec[field] if entry["name"] == name), None)

    # --- Ids, tables, features -------------------------------------------------------------------------------------

    def id_map(self, name: str, kind: dict[str, Any], id_type: str = "INT64", unknown: str | None = "ERROR") -> str:
        """The map of this content; one that is there already keeps its name."""
        content = {"id_type": id_type, **kind, **({"out_of_vocabulary": unknown} if unknown else {})}
        entry = self.named("id_maps", name)
        if entry is not None and {k: v for k, v in entry.items() if k != "name"} != content:
            return self.id_map(f"{name}'", kind, id_type, unknown)
        if entry is None:
            self.spec["id_maps"].append({"name": name, **content})
        return name

    def identity(self, name: str, size: int) -> str:
        """Ids 0 .. size - 1 are rows; others are refused, as the framework's lookup would fail."""
        return self.id_map(name, {"identity": {"size": size}})

    def ignored_ids(self) -> str:
        """For ids that requests carry and the network does not read: any is good."""
        return self.id_map("ignored", {"modulo": {"size": 1}}, unknown=None)

    def table(
        self, name: str, tensor: Tensor, rows: int | None = None, place: str | None = None, offset: int = 0
    ) -> str:
        """A table on `tensor` ([rows, dim]); with `place` a window on a tensor that may be there already."""
        if self.named("tables", name) is not None:
            return name
        entry = {"name": name, "rows": tensor.shape[0] if rows is None else rows, "dim": tensor.shape[1]}
        if place is not None:
            entry["tensor"] = place
        if offset:
            entry["row_offset"] = offset
        place = place or f"table.{name}"
        if place not in self.tensors:
            self.put(place, tensor)
        self.spec["tables"].append(entry)
        return name

    def feature(self, name: str, scope: str, kind: str, sequence: str | None = None, **more: Any) -> str:
        if self.named("features", name) is None:
            entry = {"name": name, "scope": scope, **({"sequence": sequence} if sequence else {}), "kind": kind}
            self.spec["features"].append({**entry, **{k: v for k, v in more.items() if v is not None}})
        return name

    def sequence(
        self,
        name: str,
        max_length: int,
        keep: str,
        invalid: str = "DROP",
        padded_length: int = 0,
        valid_when_not_padding: Iterable[str] = (),
        length_of: str = "",
    ) -> str:
        entry: dict[str, Any] = {"name": name, "max_length": max_length, "keep": keep, "invalid": invalid}
        if padded_length:
            entry["padded_length"] = padded_length
        if valid := list(valid_when_not_padding):
            entry["valid_when_not_padding"] = valid
        if length_of:
            entry["length_of"] = length_of
        self.spec["sequences"].append(entry)
        return name

    # --- Slots and vectors -----------------------------------------------------------------------------------------

    def free_name(self, name: str) -> str:
        """Slots, attentions, pools, interactions and pre-towers share one space of names."""
        fields = ("slots", "attentions", "sequence_pools", "interactions", "pre_towers")
        taken = {e["name"] for f in fields for e in self.spec[f]}
        return name if name not in taken else self.free_name(name + "'")

    def _slot(self, wanted: str, width: int, op: dict[str, Any]) -> str:
        for slot in self.spec["slots"]:
            if {k: v for k, v in slot.items() if k != "name"} == op:
                return slot["name"]
        name = self.free_name(wanted)
        self.spec["slots"].append({"name": name, **op})
        self.widths[name] = width
        return name

    def table_dim(self, table: str) -> int:
        return self.named("tables", table)["dim"]

    def embed(self, feature: str, table: str) -> str:
        return self._slot(feature, self.table_dim(table), {"embed": {"feature": feature, "table": table}})

    def pool(self, feature: str, table: str, **how: Any) -> str:
        return self._slot(feature, self.table_dim(table), {"pool": {"feature": feature, "table": table, **how}})

    def dense(self, feature: str) -> str:
        return self._slot(feature, self.named("features", feature)["width"], {"dense": {"feature": feature}})

    def scaled(self, value: str, table: str, feature: str | None = None) -> str:
        op = {"value": value, "table": table, **({"feature": feature} if feature else {})}
        return self._slot(value, self.table_dim(table), {"scaled": op})

    def attention(self, name: str, sequence: str, query: list[str], key: list[str], **more: Any) -> str:
        """Adds what every DIN has unless `more` says otherwise. The caller puts the layers' tensors."""
        entry = {
            "name": self.free_name(name),
            "sequence": sequence,
            "query": query,
            "key": key,
            "query_width": "QUERY_WIDTH_EQUAL",
            "input": ["Q", "K", "Q_MINUS_K", "Q_TIMES_K"],
            "out_bias": True,
            "out_activation": "NONE",
            "scale": "SCALE_NONE",
            "normalise": "NORMALISE_NONE",
            "empty": "EMPTY_ZERO",
            **more,
        }
        self.spec["attentions"].append(entry)
        post = entry.get("post", {}).get("units")
        self.widths[entry["name"]] = post or self.width(key)
        return entry["name"]

    def sequence_pool(self, name: str, sequence: str, key: list[str], kind: str, divisor_epsilon: float = 0) -> str:
        entry = {"name": self.free_name(name), "sequence": sequence, "key": key, "kind": kind}
        if divisor_epsilon:
            entry["divisor_epsilon"] = divisor_epsilon
        self.spec["sequence_pools"].append(entry)
        self.widths[entry["name"]] = self.width(key)
        return entry["name"]

    def pre_tower(self, name: str, terms: list[Term], layers: list[dict[str, Any]]) -> str:
        entry = {"name": self.free_name(name), "input": terms, "layers": layers}
        self.spec["pre_towers"].append(entry)
        self.widths[entry["name"]] = layers[-1]["units"]
        return entry["name"]

    def width(self, vectors: Iterable[str]) -> int:
        return sum(self.widths[v] for v in vectors)

    def term_width(self, terms: Iterable[Term]) -> int:
        return sum(
            t["a"]["end"] - t["a"].get("begin", 0) if "end" in t["a"] else self.widths[t["a"]["name"]] for t in terms
        )


def part(name: str, begin: int = 0, end: int = 0) -> dict[str, Any]:
    return {"name": name, "begin": begin, "end": end} if end else {"name": name}


def term(a: str | dict[str, Any], b: str | dict[str, Any] | None = None) -> Term:
    """A vector, a part of one, or the product of two."""
    out = {"a": part(a) if isinstance(a, str) else a}
    if b is not None:
        out["b"] = part(b) if isinstance(b, str) else b
    return out
