"""Random models within the family: every knob of the ModelSpec, units of tiny variance, odd requests."""
from __future__ import annotations

from typing import Any

import numpy as np

from support import EXPORTERS  # noqa: F401  (puts the package on the path)

from din_export.expected import Expected, expected_tensors
from din_export.model import float32, int64
from din_export.tensors import ArrayTensor, Tensor

PIECES = ["Q", "K", "Q_MINUS_K", "K_MINUS_Q", "Q_TIMES_K"]
EPSILONS = [1e-3, 1e-5, 1e-8, 1e-9]
ROWS = 17


class RandomModel:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.spec: dict[str, Any] = {"format": 1, "description": f"seed {seed}", "side_tables": []}
        self.lists: dict[str, Any] = {}  # values of vocabularies and side tables
        self.spec["id_maps"] = [self.id_map(n) for n in ("a", "b")]
        self.spec["tables"] = self.tables()
        self.sequences = ["s", "t"][: self.rng.integers(1, 3)]
        self.spec["features"] = self.features()
        self.spec["sequences"] = [self.sequence(n) for n in self.sequences]
        self.slots()
        self.network()
        self.tensors = self.draw_tensors()

    def one(self, *values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def chance(self, p: float = 0.5) -> bool:
        return bool(self.rng.random() < p)

    # --- Ids, tables, features -------------------------------------------------------------------------------------

    def id_map(self, name: str) -> dict[str, Any]:
        kind = self.one("identity", "modulo", "hash", "vocabulary")
        if kind == "modulo":
            return {"name": name, "id_type": "INT64", "modulo": {"size": ROWS}}
        if kind == "hash":
            function = self.one("FARMHASH64_DECIMAL", "FARMHASH64_DECIMAL_SKIP_ZERO", "XXH64")
            how = {
                "function": function,
                "size": ROWS,
                **({"seed": int(self.rng.integers(9))} if function == "XXH64" else {}),
            }
            return {"name": name, "id_type": self.one("INT64", "STRING"), "hash": how}
        unknown = self.one({"out_of_vocabulary": "ZERO"}, {"out_of_vocabulary": "ROW", "out_of_vocabulary_row": 3})
        if kind == "identity":
            return {
                "name": name,
                "id_type": "INT64",
                "identity": {"size": ROWS - 2, "first": int(self.rng.integers(3))},
                **unknown,
            }
        id_type = self.one("INT64", "STRING")
        keys = self.rng.permutation(40)[: ROWS - 1].tolist()
        self.lists[f"vocab.{name}"] = (
            [f"id {k} {'x' * (k * 2)}" for k in keys] if id_type == "STRING" else [k - 4 for k in keys]
        )
        return {"name": name, "id_type": id_type, "vocabulary": {"first_row": 1}, **unknown}

    def tables(self) -> list[dict[str, Any]]:
        self.dims = {"a": int(self.rng.integers(1, 6)), "b": int(self.rng.integers(1, 6))}
        tables = [{"name": n, "rows": ROWS, "dim": d} for n, d in self.dims.items()]
        if self.chance():  # two windows on one tensor
            for i, t in enumerate(tables):
                t.update(tensor="both", dim=self.dims["a"], **({"row_offset": ROWS} if i else {}))
            self.dims["b"] = self.dims["a"]
        return tables + [{"name": "bias", "rows": ROWS, "dim": 1}]

    def features(self) -> list[dict[str, Any]]:
        pad = lambda m: {"padding": {"key": "0"} if self.map_type(m) == "STRING" else {"id": 0}}
        f = [
            {"name": "u_id", "scope": "USER", "kind": "ID", "id_map": "a"},
            {"name": "u_list", "scope": "USER", "kind": "ID_LIST", "id_map": "b", **pad("b")},
            {"name": "u_num", "scope": "USER", "kind": "DENSE", "width": 2},
            {"name": "c_a", "scope": "CANDIDATE", "kind": "ID", "id_map": "a"},
            {"name": "c_b", "scope": "CANDIDATE", "kind": "ID", "id_map": "b"},
            {
                "name": "c_list",
                "scope": "CANDIDATE",
                "kind": "ID_LIST",
                "id_map": "a",
                **pad("a"),
                "max_length": 3,
                "keep": self.one("KEEP_LAST", "KEEP_FIRST"),
            },
            {"name": "c_num", "scope": "CANDIDATE", "kind": "DENSE", "width": 1},
        ]
        for s in self.sequences:
            for m in ("a", "b"):
                f.append({"name": f"{s}_{m}", "scope": "SEQUENCE", "sequence": s, "kind": "ID", "id_map": m, **pad(m)})
            f.append({"name": f"{s}_num", "scope": "SEQUENCE", "sequence": s, "kind": "DENSE", "width": 1})
        if self.map_type("a") == "INT64":  # an attribute of the candidate from a side table
            self.lists["side.attr"] = (
                self.rng.integers(-3, 40, 60).tolist()
                if self.map_type("b") == "INT64"
                else [str(k) for k in self.rng.integers(0, 40, 60)]
            )
            self.spec["side_tables"] = [
                {
                    "name": "attr",
                    "key_type": "INT64",
                    "rows": 60,
                    "kind": "ID",
                    "value_type": self.map_type("b"),
                    "missing_key": "MISSING_KEY_ZERO",
                }
            ]
            f.append(
                {
                    "name": "c_attr",
                    "scope": "CANDIDATE",
                    "kind": "ID",
                    "id_map": "b",
                    "side": {"side_table": "attr", "key": "c_a"},
                }
            )
        return f

    def map_type(self, name: str) -> str:
        return next(m["id_type"] for m in self.spec["id_maps"] if m["name"] == name)

    def sequence(self, name: str) -> dict[str, Any]:
        out: dict[str, Any] = {
            "name": name,
            "max_length": int(self.rng.integers(1, 7)),
            "keep": self.one("KEEP_LAST", "KEEP_FIRST"),
        }
        if self.chance(0.3):
            return {**out, "invalid": "PARTICIPATE", "padded_length": out["max_length"] + int(self.rng.integers(3))}
        out["invalid"] = "DROP"
        if self.chance(0.3):
            return {**out, "padded_length": out["max_length"] + int(self.rng.integers(3)), "length_of": "u_list"}
        out["valid_when_not_padding"] = self.one([], [f"{name}_a"], [f"{name}_a", f"{name}_b"])
        if self.chance():
            out["padded_length"] = out["max_length"]
        return out

    # --- Slots -----------------------------------------------------------------------------------------------------

    def slots(self) -> None:
        pool = lambda: {
            "kind": self.one("MEAN", "SUM", "MAX"),
            "skip_padding": self.chance(),
            "divisor_epsilon": self.one(0, 1e-8),
            "empty_value": self.one(0, -0.5),
        }
        s = {
            "u": {"embed": {"feature": "u_id", "table": "a"}},
            "ul": {"pool": {"feature": "u_list", "table": "b", **pool()}},
            "un": {"dense": {"feature": "u_num"}},
            "ca": {"embed": {"feature": "c_a", "table": "a"}},
            "cb": {"embed": {"feature": "c_b", "table": "b"}},
            "cl": {"pool": {"feature": "c_list", "table": "a", **pool()}},
            "cs": {"scaled": {"value": "c_num", "table": "b", **({"feature": "c_b"} if self.chance() else {})}},
        }
        for q in self.sequences:
            s.update(
                {
                    f"{q}a": {"embed": {"feature": f"{q}_a", "table": "a"}},
                    f"{q}b": {"embed": {"feature": f"{q}_b", "table": "b"}},
                    f"{q}n": {"scaled": {"value": f"{q}_num", "feature": f"{q}_a", "table": "a"}},
                }
            )
        if self.spec["side_tables"]:
            s["cx"] = {"embed": {"feature": "c_attr", "table": "b"}}
        self.spec["slots"] = [{"name": n, **op} for n, op in s.items()]
        dim = lambda op: self.dims[next(v["table"] for v in op.values())] if "dense" not in op else 2
        self.width = {n: dim(op) for n, op in s.items()}

    # --- Layers ----------------------------------------------------------------------------------------------------

    def bn(self) -> dict[str, Any]:
        return {"eps": self.one(*EPSILONS), "affine": self.chance()}

    def activation(self) -> dict[str, Any]:
        kind = self.one("NONE", "RELU", "SIGMOID", "TANH", "PRELU", "LEAKY_RELU", "SILU", "DICE", "DICE", "DICE")
        if kind == "LEAKY_RELU":
            return {"kind": kind, "leaky_slope": 0.2}
        if kind != "DICE":
            return {"kind": kind}
        alpha = self.one({"alpha": "ALPHA_TENSOR"}, {"alpha": "ALPHA_CONSTANT", "alpha_value": 0.3})
        statistics = self.one("RUNNING", "IDENTITY", "PER_ROW")
        dice = {"statistics": statistics, **alpha}
        if statistics != "IDENTITY":
            dice["eps"] = self.one(*EPSILONS)
        if statistics == "RUNNING":
            dice.update(affine=self.chance(), slope=self.chance())
        return {"kind": kind, "dice": dice}

    def layers(self, least: int = 1) -> list[dict[str, Any]]:
        out = []
        for _ in range(self.rng.integers(least, 4)):
            layer: dict[str, Any] = {
                "units": int(self.rng.integers(1, 20)),
                "bias": self.chance(0.8),
                "activation": self.activation(),
            }
            if self.chance(0.4):
                layer["bn"] = self.bn()
            if self.chance(0.2):
                layer["out_bn"] = self.bn()
            out.append(layer)
        return out

    # --- The network -----------------------------------------------------------------------------------------------

    def network(self) -> None:
        self.spec["attentions"] = [self.attention(i) for i in range(self.rng.integers(1, 3))]
        self.spec["sequence_pools"] = []
        if self.chance(0.4):
            q = self.one(*self.sequences)
            self.spec["sequence_pools"] = [
                {"name": "sum", "sequence": q, "key": [f"{q}a", f"{q}b"], "kind": self.one("SUM", "MEAN")}
            ]
            self.width["sum"] = self.width[f"{q}a"] + self.width[f"{q}b"]
        self.spec["interactions"] = []
        if self.chance():
            self.interactions()
        self.spec["pre_towers"] = []
        if self.chance(0.4):
            self.spec["pre_towers"] = [{"name": "pre", "input": self.terms(), "layers": self.layers()}]
            self.width["pre"] = self.spec["pre_towers"][0]["layers"][-1]["units"]
        tower: dict[str, Any] = {
            "input": self.terms(),
            "layers": self.layers(0),
            "head_bias": self.chance(),
            "global_bias": self.chance(),
            "classes": self.one(1, 2),
        }
        if self.chance(0.4):
            tower["in_bn"] = self.bn()
        if tower["classes"] == 2:
            tower["positive_class"] = self.one(0, 1)
        if self.chance(0.4):
            names = self.rng.permutation(self.vectors())[:3].tolist()
            tower["wide"] = [self.part(n, 1, self.width[n] + 1) for n in names]
            if self.chance(0.3):  # LR, FM
                tower = {"classes": 1, "wide": tower["wide"], "global_bias": tower["global_bias"]}
        if self.chance():
            tower["id_biases"] = [{"feature": self.one("c_a", "u_id"), "table": "bias"}]
        self.spec["tower"] = tower

    def vectors(self) -> list[str]:
        return [n for n in self.width if not any(n == f"{q}{x}" for q in self.sequences for x in "abn")]

    def part(self, name: str, least: int, below: int) -> dict[str, Any]:
        """A VectorRef of at least so many elements."""
        used, width = int(self.rng.integers(least, below)), self.width[name]
        begin = int(self.rng.integers(width - used + 1))
        return {"name": name} if used == width else {"name": name, "begin": begin, "end": begin + used}

    def interactions(self) -> None:
        made = {}
        for i in range(self.rng.integers(1, 3)):
            names = [self.one(*self.vectors()) for _ in range(self.rng.integers(2, 6))]
            width = min(self.width[n] for n in names)
            kind = self.one("INNER_PRODUCTS", "BI_INTERACTION")
            members = [self.part(n, width, width + 1) for n in names]
            self.spec["interactions"].append({"name": f"inter{i}", "vectors": members, "kind": kind})
            made[f"inter{i}"] = len(names) * (len(names) - 1) // 2 if kind == "INNER_PRODUCTS" else width
        self.width.update(made)

    def attention(self, g: int) -> dict[str, Any]:
        q = self.one(*self.sequences)
        key = self.one([f"{q}a"], [f"{q}a", f"{q}b"], [f"{q}b", f"{q}n", f"{q}a"])
        query = {1: ["ca"], 2: ["ca", "cb"], 3: ["cb", "ca", "ca"]}[len(key)]
        if self.chance(0.3) and len(query) > 1:
            query = query[:-1]
        normalise = self.one("NORMALISE_NONE", "NORMALISE_SOFTMAX", "NORMALISE_SIGMOID")
        out = self.one("NONE", "NONE", "SIGMOID")
        widths = [sum(self.width[x] for x in names) for names in (query, key)]
        pieces = self.rng.permutation(PIECES)[: self.rng.integers(2, 6)].tolist()
        a = {
            "name": f"att{g}",
            "sequence": q,
            "query": query,
            "key": key,
            "input": pieces,
            "layers": self.layers(),
            "query_width": "QUERY_WIDTH_EQUAL" if widths[0] == widths[1] else "QUERY_WIDTH_ZERO_PAD",
            "out_bias": self.chance(),
            "out_activation": out,
            "normalise": normalise,
            "scale": self.one("SCALE_NONE", "SCALE_INVERSE_SQRT_WIDTH") if out == "NONE" else "SCALE_NONE",
            "empty": self.one("EMPTY_ZERO", "EMPTY_POSITIONS_MEAN")
            if normalise == "NORMALISE_SOFTMAX"
            else "EMPTY_ZERO",
        }
        if self.chance(0.3):
            a["post"] = {"bn": self.bn(), "units": int(self.rng.integers(1, 9)), "bias": self.chance()}
        self.width[a["name"]] = a.get("post", {}).get("units", widths[1])
        return a

    def terms(self) -> list[dict[str, Any]]:
        vectors = self.vectors()
        out = []
        for _ in range(self.rng.integers(2, 8)):
            name = self.one(*vectors)
            width = self.width[name]
            begin = int(self.rng.integers(width))
            ref = {"name": name} if self.chance(0.7) else {"name": name, "begin": begin, "end": width}
            used = width - ref.get("begin", 0)
            same = [n for n in vectors if self.width[n] == used]
            out.append({"a": ref, "b": {"name": self.one(*same)}} if same and self.chance(0.3) else {"a": ref})
        out.append({"a": {"name": "att0"}})
        return out

    # --- Tensors ---------------------------------------------------------------------------------------------------

    def draw_tensors(self) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for e in expected_tensors(self.spec):
            if e.kind in ("integers", "bytes"):
                out[e.name] = self.listed(e)
            elif e.kind == "table" and self.chance(0.25):
                out[e.name] = ArrayTensor(self.rng.integers(-127, 128, e.shape).astype(np.int8))
                out[f"{e.name}.scale"] = float32(self.rng.normal(0, 0.6 / 73, e.shape[0]))
            elif e.kind == "table":
                values = self.rng.normal(0, 0.6, e.shape).astype(self.one(np.float32, np.float32, np.float16))
                out[e.name] = ArrayTensor(values)
            else:
                out[e.name] = float32(self.weights(e))
        self.shrink(out)
        return out

    def weights(self, e: Expected) -> np.ndarray:
        if e.name.endswith(".var"):
            return self.rng.uniform(0.2, 2, e.shape)
        if e.name.endswith((".gamma", ".slope")):
            return self.rng.normal(1, 0.3, e.shape)
        return self.rng.normal(0, 1 / np.sqrt(e.shape[-1]) if len(e.shape) == 2 else 0.3, e.shape)

    def shrink(self, tensors: dict[str, Tensor]) -> None:
        """Units whose scale is far below one, as in lightly trained layers: there eps matters."""
        for name in [n for n in tensors if n.endswith(".var")]:
            layer = name.removesuffix(".var").removesuffix(".bn").removesuffix(".act")
            if name.endswith(("out_bn.var", "in_bn.var", "post.bn.var")) or f"{layer}.w" not in tensors:
                continue
            scale = np.ones(tensors[name].shape)
            scale[1::3], scale[2::5] = 1e-3, 3e-5
            for part, power in (("w", 1), ("b", 1)):
                if f"{layer}.{part}" in tensors:
                    values = tensors[f"{layer}.{part}"].float64()
                    tensors[f"{layer}.{part}"] = float32(
                        values * (scale[:, None] if values.ndim == 2 else scale) ** power
                    )
            prefix = name.removesuffix(".var")
            tensors[f"{prefix}.mean"] = float32(tensors[f"{prefix}.mean"].float64() * scale)
            tensors[name] = float32(tensors[name].float64() * scale**2)

    def listed(self, e: Expected) -> Tensor:
        group, name, part, *rest = e.name.split(".")
        values = self.lists[f"{group}.{name}"]
        if not rest:
            return int64(values)
        data = [v.encode() for v in values]
        if rest == ["bytes"]:
            return ArrayTensor(np.frombuffer(b"".join(data), np.uint8))
        return int64(np.cumsum([0] + [len(d) for d in data]))

    # --- Requests --------------------------------------------------------------------------------------------------

    def ids(self, id_map: str, count: int) -> dict[str, Any]:
        values = self.rng.integers(-2, 42, count)
        if self.map_type(id_map) != "STRING":
            return {"ids": values.tolist()}
        return {"keys": [str(v) if v % 3 else f"id {v} {'x' * (2 * abs(int(v)))}" for v in values]}

    def case(self, behaviours: int) -> dict[str, Any]:
        n = int(self.rng.integers(1, 6))
        case: dict[str, Any] = {"id": f"{behaviours} behaviours", "features": [], "candidates": [], "tolerance": 1e-5}
        lists: dict[str, list[dict[str, Any]]] = {s: [] for s in self.sequences}
        for f in self.spec["features"]:
            if "side" in f:
                continue
            rows = {"USER": 1, "CANDIDATE": n, "SEQUENCE": behaviours}[f["scope"]]
            column = {"name": f["name"]}
            if f["kind"] == "DENSE":
                column["values"] = self.rng.normal(0, 1, rows * f["width"]).astype(np.float32).astype(float).tolist()
            elif f["kind"] == "ID":
                column.update(self.ids(f["id_map"], rows))
            else:
                counts = self.rng.integers(0, 5, rows)
                column.update(self.ids(f["id_map"], int(counts.sum())))
                if f["scope"] != "USER":
                    column["offsets"] = [0, *np.cumsum(counts).tolist()]
            {"USER": case["features"], "CANDIDATE": case["candidates"], "SEQUENCE": lists.get(f.get("sequence"), [])}[
                f["scope"]
            ].append(column)
        case["sequences"] = [{"name": s, "columns": c} for s, c in lists.items()]
        case["scores"] = [0.0] * n
        return case
