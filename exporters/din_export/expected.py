"""Every tensor that a ModelSpec asks for, by the names that proto/model_spec.proto gives at each message."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .errors import ExportError


@dataclass(frozen=True)
class Expected:
    name: str
    shape: tuple[int, ...]  # -1: any
    kind: str  # table, weight, alpha, integers, bytes, values
    why: str


def expected_tensors(spec: dict[str, Any]) -> list[Expected]:
    return list(_Walk(spec).all())


class _Walk:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.tables = {t["name"]: t for t in spec.get("tables", [])}
        self.features = {f["name"]: f for f in spec.get("features", [])}
        self.widths: dict[str, int] = {}

    def all(self) -> Iterator[Expected]:
        yield from self.ids()
        for i, slot in enumerate(self.spec.get("slots", [])):
            self.widths[slot["name"]] = self.slot_width(f"slots[{i}]", slot)
        for g, attention in enumerate(self.spec.get("attentions", [])):
            yield from self.attention(g, attention)
        for pool in self.spec.get("sequence_pools", []):
            self.widths[pool["name"]] = self.concat(f"sequence_pools.{pool['name']}", pool["key"])
        found = [self.interaction(f"interactions[{i}]", e) for i, e in enumerate(self.spec.get("interactions", []))]
        for entry, width in zip(self.spec.get("interactions", []), found):
            self.widths[entry["name"]] = width
        outs = []
        for p, network in enumerate(self.spec.get("pre_towers", [])):
            yield from self.network(f"pre{p}", network, outs)
        for network, width in zip(self.spec.get("pre_towers", []), outs):
            self.widths[network["name"]] = width
        outs = []
        tower = self.spec.get("tower")
        if not isinstance(tower, dict):
            raise ExportError("spec: tower is missing")
        for i, ref in enumerate(tower.get("wide", [])):
            self.used(f"tower.wide[{i}]", ref)
        if tower.get("input") or not tower.get("wide"):
            yield from self.network("tower", tower, outs)
            classes = tower.get("classes", 0)
            yield Expected("head.w", (classes, outs[0]), "weight", "tower.classes and the last layer")
            if tower.get("head_bias"):
                yield Expected("head.b", (classes,), "weight", "tower.head_bias")
        if tower.get("global_bias"):
            yield Expected("bias.global", (1,), "weight", "tower.global_bias")

    def ids(self) -> Iterator[Expected]:
        for m in self.spec.get("id_maps", []):
            if "vocabulary" in m:
                yield from self.strings_or_ids(f"vocab.{m['name']}.keys", m.get("id_type"), -1, f"id map {m['name']}")
        windows: dict[str, tuple[int, int]] = {}
        for t in self.tables.values():
            name = t.get("tensor") or f"table.{t['name']}"
            rows = int(t.get("row_offset", 0)) + int(t["rows"])
            windows[name] = (max(rows, windows.get(name, (0, 0))[0]), t["dim"])
        for name, shape in windows.items():
            yield Expected(name, shape, "table", "the rows and dim of its tables")
        for s in self.spec.get("side_tables", []):
            yield from self.side_table(s)

    def strings_or_ids(self, name: str, id_type: str, count: int, why: str) -> Iterator[Expected]:
        if id_type == "STRING":
            yield Expected(f"{name}.bytes", (-1,), "bytes", why)
            yield Expected(f"{name}.offsets", (count + 1 if count >= 0 else -1,), "integers", why)
        else:
            yield Expected(name, (count,), "integers", why)

    def side_table(self, s: dict[str, Any]) -> Iterator[Expected]:
        at, rows, why = f"side.{s['name']}", int(s["rows"]), f"side table {s['name']}"
        if s.get("key_type") == "STRING":
            yield from self.strings_or_ids(f"{at}.keys", "STRING", rows, why)
        if s["kind"] == "DENSE":
            yield Expected(f"{at}.values", (rows, s["width"]), "values", why)
        elif s["kind"] == "ID":
            yield from self.strings_or_ids(f"{at}.values", s.get("value_type"), rows, why)
        else:
            yield Expected(f"{at}.values", (-1,), "integers", why)
            yield Expected(f"{at}.offsets", (rows + 1,), "integers", why)

    def slot_width(self, where: str, slot: dict[str, Any]) -> int:
        for op in ("embed", "pool", "scaled"):
            if op in slot:
                if slot[op].get("table") not in self.tables:
                    raise ExportError(f"spec: {where}.{op}.table: no table {slot[op].get('table')!r}")
                return self.tables[slot[op]["table"]]["dim"]
        if "dense" in slot and slot["dense"].get("feature") in self.features:
            return self.features[slot["dense"]["feature"]].get("width", 0)
        raise ExportError(f"spec: {where}: no op among embed, pool, dense, scaled, or no such feature")

    def concat(self, where: str, names: list[str]) -> int:
        for name in names:
            if name not in self.widths:
                raise ExportError(f"spec: {where}: no slot {name!r}")
        return sum(self.widths[n] for n in names)

    def layers(self, prefix: str, layers: list[dict[str, Any]], n_in: int) -> Iterator[Expected]:
        for i, layer in enumerate(layers):
            at, units = f"{prefix}.l{i}", layer["units"]
            yield Expected(f"{at}.w", (units, n_in), "weight", f"{prefix}.layers[{i}].units and its input")
            if layer.get("bias"):
                yield Expected(f"{at}.b", (units,), "weight", f"{prefix}.layers[{i}].bias")
            if "bn" in layer:
                yield from self.batch_norm(f"{at}.bn", layer["bn"], units)
            yield from self.activation(f"{at}.act", layer.get("activation", {}), units)
            if "out_bn" in layer:
                yield from self.batch_norm(f"{at}.out_bn", layer["out_bn"], units)
            n_in = units

    def batch_norm(self, at: str, bn: dict[str, Any], units: int) -> Iterator[Expected]:
        for part in ("mean", "var") + (("gamma", "beta") if bn.get("affine") else ()):
            yield Expected(f"{at}.{part}", (units,), "weight", at)

    def activation(self, at: str, activation: dict[str, Any], units: int) -> Iterator[Expected]:
        dice = activation.get("dice", {})
        if activation.get("kind") == "PRELU" or dice.get("alpha") == "ALPHA_TENSOR":
            yield Expected(f"{at}.alpha", (units,), "alpha", at)
        if dice.get("statistics") == "RUNNING":
            yield from self.batch_norm(at, dice, units)
            if dice.get("slope"):
                yield Expected(f"{at}.slope", (units,), "weight", at)

    def attention(self, g: int, a: dict[str, Any]) -> Iterator[Expected]:
        at, width = f"att{g}", self.concat(f"attentions[{g}].key", a["key"])
        self.concat(f"attentions[{g}].query", a["query"])
        yield from self.layers(at, a["layers"], len(a["input"]) * width)
        yield Expected(f"{at}.out.w", (1, a["layers"][-1]["units"]), "weight", f"attentions[{g}]")
        if a.get("out_bias"):
            yield Expected(f"{at}.out.b", (1,), "weight", f"attentions[{g}].out_bias")
        post = a.get("post", {})
        if "bn" in post:
            yield from self.batch_norm(f"{at}.post.bn", post["bn"], width)
        if post.get("units"):
            yield Expected(f"{at}.post.w", (post["units"], width), "weight", f"attentions[{g}].post")
            if post.get("bias"):
                yield Expected(f"{at}.post.b", (post["units"],), "weight", f"attentions[{g}].post.bias")
        self.widths[a["name"]] = post.get("units") or width

    def used(self, where: str, ref: dict[str, Any]) -> int:
        """The width of the part that a VectorRef names."""
        if ref.get("name") not in self.widths:
            raise ExportError(f"spec: {where}: no vector {ref.get('name')!r}")
        return (ref.get("end") or self.widths[ref["name"]]) - ref.get("begin", 0)

    def interaction(self, where: str, entry: dict[str, Any]) -> int:
        widths = [self.used(f"{where}.vectors[{i}]", ref) for i, ref in enumerate(entry.get("vectors", []))]
        if len(widths) < 2 or len(set(widths)) > 1:
            raise ExportError(f"spec: {where}.vectors: widths {widths}, expected two or more equal ones")
        return len(widths) * (len(widths) - 1) // 2 if entry.get("kind") == "INNER_PRODUCTS" else widths[0]

    def network(self, prefix: str, network: dict[str, Any], outs: list[int]) -> Iterator[Expected]:
        width = 0
        for i, t in enumerate(network.get("input", [])):
            width += self.used(f"{prefix}.input[{i}]", t.get("a", {}))
        if "in_bn" in network:
            yield from self.batch_norm(f"{prefix}.in_bn", network["in_bn"], width)
        layers = network.get("layers", [])
        yield from self.layers(prefix, layers, width)
        outs.append(layers[-1]["units"] if layers else width)
