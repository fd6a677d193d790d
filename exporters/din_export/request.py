"""A golden case's columns, as the model sees them: rows of tables and numbers. The rules are those of model/input.h."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import ExportError
from .hashing import farmhash64, xxh64
from .tensors import Tensor

ZERO_ROW = -1  # a row of zeros
PADDING = -1  # a position that is not in the request


class IdMap:
    def __init__(self, spec: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.spec = spec
        self._keys: dict[Any, int] = {}
        if "vocabulary" in spec:
            first = int(spec["vocabulary"].get("first_row", 0))
            keys = strings_or_ids(tensors, f"vocab.{spec['name']}.keys", spec["id_type"])
            self._keys = {key: first + i for i, key in enumerate(keys)}

    def row(self, value: Any, where: str) -> int:
        spec = self.spec
        if "identity" in spec:
            at = int(value) - int(spec["identity"].get("first", 0))
            if 0 <= at < int(spec["identity"]["size"]):
                return at
        elif "modulo" in spec:
            return int(value) % int(spec["modulo"]["size"])
        elif "hash" in spec:
            return self._hashed(value)
        elif self._key(value) in self._keys:
            return self._keys[self._key(value)]
        rule = spec.get("out_of_vocabulary")
        if rule == "ROW":
            return int(spec.get("out_of_vocabulary_row", 0))
        if rule == "ZERO":
            return ZERO_ROW
        size = spec.get("identity", {}).get("size")
        raise ExportError(f"{where}: id {value!r} is out of vocabulary" + (f", expected [0, {size})" if size else ""))

    def _key(self, value: Any) -> Any:
        return value.encode() if isinstance(value, str) else value

    def _hashed(self, value: Any) -> int:
        hashing = self.spec["hash"]
        size, text = int(hashing["size"]), (value if isinstance(value, str) else str(int(value))).encode()
        if hashing["function"] == "XXH64":
            return xxh64(text, int(hashing.get("seed", 0))) % size
        if hashing["function"] == "FARMHASH64_DECIMAL":
            return farmhash64(text) % size
        return 0 if text == b"0" else farmhash64(text) % (size - 1) + 1


def strings_or_ids(tensors: Mapping[str, Tensor], name: str, id_type: str) -> list[Any]:
    if id_type != "STRING":
        return tensors[name].read().tolist()
    data, offsets = tensors[f"{name}.bytes"].read().tobytes(), tensors[f"{name}.offsets"].read().tolist()
    return [data[a:b] for a, b in zip(offsets, offsets[1:])]


class SideTable:
    def __init__(self, spec: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.spec, self._at, self._tensors = spec, f"side.{spec['name']}", tensors
        self._keys: dict[Any, int] | None = None
        if f"{self._at}.keys" in tensors or f"{self._at}.keys.bytes" in tensors:
            keys = strings_or_ids(tensors, f"{self._at}.keys", spec["key_type"])
            self._keys = {key: i for i, key in enumerate(keys)}

    def value(self, key: Any, where: str) -> Any:
        """An id, a list of ids, numbers; None where a missing key counts as zero."""
        plain = key.encode() if isinstance(key, str) else key
        if self._keys is not None:
            entry = self._keys.get(plain, -1)
        else:
            entry = int(key) if 0 <= int(key) < int(self.spec["rows"]) else -1
        if entry < 0:
            if self.spec["missing_key"] == "MISSING_KEY_ZERO":
                return None
            raise ExportError(f"{where}: id {key!r} is not in side table {self.spec['name']}")
        if self.spec["kind"] == "ID":
            if self.spec.get("value_type") == "STRING":
                return strings_or_ids(self._tensors, f"{self._at}.values", "STRING")[entry]
            return int(self._tensors[f"{self._at}.values"].row_range(entry, entry + 1)[0])
        if self.spec["kind"] == "DENSE":
            return self._tensors[f"{self._at}.values"].gather(np.array([entry]))[0]
        begin, end = self._tensors[f"{self._at}.offsets"].row_range(entry, entry + 2).tolist()
        return self._tensors[f"{self._at}.values"].row_range(begin, end).tolist()


@dataclass
class Decoded:
    """Per feature, one entry per row: a row of a table; a list of (row, is padding); numbers."""

    candidates: int = 0
    columns: dict[str, list[Any]] = field(default_factory=dict)
    positions: dict[str, list[int]] = field(default_factory=dict)
    empty: dict[str, bool] = field(default_factory=dict)


class Decoder:
    def __init__(self, spec: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.features = {f["name"]: f for f in spec.get("features", [])}
        self.sequences = {s["name"]: s for s in spec.get("sequences", [])}
        self.maps = {m["name"]: IdMap(m, tensors) for m in spec.get("id_maps", [])}
        self.sides = {s["name"]: SideTable(s, tensors) for s in spec.get("side_tables", [])}
        # An attention that wants all positions of an empty history.
        self.wants_positions = {
            a["sequence"] for a in spec.get("attentions", []) if a.get("empty") == "EMPTY_POSITIONS_MEAN"
        }

    def decode(self, case: dict[str, Any]) -> Decoded:
        sent = {c["name"]: c for c in case.get("features", []) + case.get("candidates", [])}
        lists = {s["name"]: s for s in case.get("sequences", [])}
        for sequence in lists.values():
            sent.update({c["name"]: c for c in sequence.get("columns", [])})
        out = Decoded(candidates=len(case["scores"]))
        for name, spec in self.sequences.items():
            self._positions(name, spec, lists.get(name, {}), sent, out)
        for name, feature in self.features.items():
            out.columns[name] = [
                self._value(feature, p, sent, f"case {case['id']}: {name}[{p}]") for p in self._rows(feature, out)
            ]
        return out

    def _rows(self, feature: dict[str, Any], out: Decoded) -> list[int]:
        if feature["scope"] == "SEQUENCE":
            return out.positions[feature["sequence"]]
        return [0] if feature["scope"] == "USER" else list(range(out.candidates))

    def _positions(
        self, name: str, spec: dict[str, Any], sent_list: dict[str, Any], sent: dict[str, Any], out: Decoded
    ) -> None:
        columns = sent_list.get("columns", [])
        count = max((self._count(c) for c in columns), default=0)
        kept = min(count, spec["max_length"])
        first = count - kept if spec["keep"] == "KEEP_LAST" else 0
        every = list(range(first, first + kept))
        padded = spec.get("padded_length", 0)
        if "length_of" in spec:
            chosen = (every + [PADDING] * (padded - kept))[: self._list_length(spec["length_of"], sent)]
        elif spec["invalid"] == "DROP":
            chosen = [p for p in every if self._is_valid(spec, p, sent)]
        else:
            chosen = every + [PADDING] * (padded - kept)
        out.empty[name] = not chosen
        if not chosen and name in self.wants_positions:
            chosen = every + [PADDING] * (max(padded, 1) - kept)
        out.positions[name] = chosen

    def _list_length(self, name: str, sent: dict[str, Any]) -> int:
        feature = self.features[name]
        length, limit = len(self._raw(feature, 0, sent, name) or []), feature.get("max_length", 0)
        return min(length, limit) if limit else length

    def _count(self, column: dict[str, Any]) -> int:
        feature = self.features[column["name"]]
        if feature["kind"] == "ID_LIST":
            return len(column["offsets"]) - 1
        if feature["kind"] == "DENSE":
            return len(column.get("values", [])) // feature["width"]
        return len(_ids(column))

    def _is_valid(self, spec: dict[str, Any], position: int, sent: dict[str, Any]) -> bool:
        for name in spec.get("valid_when_not_padding", []):
            padding = self.features[name]["padding"]
            raw = self._raw(self.features[name], position, sent, name)
            if raw == padding.get("id", padding.get("key")):
                return False
        return True

    def _raw(self, feature: dict[str, Any], position: int, sent: dict[str, Any], where: str) -> Any:
        """What the request or a side table says, before the id map."""
        if feature["name"] in sent:
            column = sent[feature["name"]]
            if feature["kind"] == "DENSE":
                width = feature["width"]
                return np.asarray(column["values"][position * width : (position + 1) * width], np.float32).astype(
                    np.float64
                )
            if feature["kind"] == "ID":
                return _ids(column)[position]
            if feature["scope"] == "USER":
                return _ids(column)
            return _ids(column)[column["offsets"][position] : column["offsets"][position + 1]]
        if "side" not in feature:
            raise ExportError(f"{where}: the request does not carry it")
        key = self._raw(self.features[feature["side"]["key"]], position, sent, where)
        return self.sides[feature["side"]["side_table"]].value(key, where)

    def _padding(self, feature: dict[str, Any]) -> Any:
        padding = feature.get("padding", {})
        if padding.get("zero_vector"):
            return None
        if "id" in padding or "key" in padding:
            return int(padding["id"]) if "id" in padding else padding["key"]
        if "side" in feature:
            key = self._padding(self.features[feature["side"]["key"]])
            return None if key is None else self.sides[feature["side"]["side_table"]].value(key, feature["name"])
        return None

    def _value(self, feature: dict[str, Any], position: int, sent: dict[str, Any], where: str) -> Any:
        kind = feature["kind"]
        if position == PADDING:
            raw = self._padding(feature) if kind == "ID" or "side" in feature else None
        else:
            raw = self._raw(feature, position, sent, where)
        if kind == "DENSE":
            return np.zeros(feature["width"]) if raw is None else raw
        ids = self.maps[feature["id_map"]]
        if kind == "ID":
            return ZERO_ROW if raw is None else ids.row(raw, where)
        raw = list(raw or [])
        length = feature.get("max_length", 0)
        if length and len(raw) > length:
            raw = raw[-length:] if feature["keep"] == "KEEP_LAST" else raw[:length]
        padding = feature.get("padding", {})
        pad = padding.get("id", padding.get("key"))
        return [(ids.row(v, where), v == pad) for v in raw]


def _ids(column: dict[str, Any]) -> list[Any]:
    return column["keys"] if "keys" in column else [int(v) for v in column.get("ids", [])]
