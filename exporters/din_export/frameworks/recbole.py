"""RecBole, RUCAIBox/RecBole @ 7b02be5e: recbole.model.sequential_recommender.din.DIN.

Everything about an item is looked up from its id inside the model, so it comes from side tables.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..conversion import Conversion, check_integers
from ..description import check_kind
from ..errors import ExportError
from ..layers import SIGMOID, TORCH, LayerReader, Sequential, dice, read_sequential, walk
from ..model import float32, int64, part, term

NAME = "recbole"
REPO = "RUCAIBox/RecBole"
ALIASES = ("RecBole",)
HARMLESS = {
    "LABEL_FIELD",
    "NEG_PREFIX",
    "ITEM_LIST_LENGTH_FIELD",
    "dropout_prob",
    "USER_ID_FIELD",
    "TIME_FIELD",
    "seed",
    "learning_rate",
    "train_batch_size",
    "eval_batch_size",
    "epochs",
    "device",
    "loss_type",
    "train_neg_sample_args",
}

# A BatchNorm stands before their Dice, whose alpha is a constant zero that is not saved: x * sigmoid(x).
DICE = dice("IDENTITY", alpha="ALPHA_CONSTANT", alpha_value=0)
KINDS = ("token", "token_seq", "float", "float_seq")
ITEMS = "embedding_layer."


@dataclass
class Use:
    """An item's fields where it is the candidate, or a behaviour."""

    suffix: str
    where: dict[str, Any]


def convert(c: Conversion) -> None:
    RecBole(c).run()


class RecBole:
    def __init__(self, c: Conversion) -> None:
        self.c, self.d, self.model = c, c.description, c.model
        self.d.require_padding_behind()
        self.dim = self.d.hyper("embedding_size", int, 10)
        self.pooling = self.d.hyper("pooling_mode", str, "mean")
        if self.pooling not in ("mean", "max", "sum"):
            raise ExportError(f"description: hyperparameters.pooling_mode: {self.pooling!r}; accepted: mean, max, sum")
        self.item = self.d.hyper("ITEM_ID_FIELD", str, "item_id")
        self.list_suffix = self.d.hyper("LIST_SUFFIX", str, "_list")
        self.types = self.d.get("field_types", dict)
        self.sizes = self.d.get("field_sizes", dict)
        self.numerical = self.d.hyper("numerical_features", list, [])
        columns = self.d.get("item_feature_columns", list, [self.item])
        for name in columns:
            if self.types.get(name) not in KINDS:
                raise ExportError(
                    f"description: field_types.{name}: {self.types.get(name)!r}; accepted: {', '.join(KINDS)}"
                )
        self.fields = {kind: [n for n in columns if self.types[n] == kind] for kind in KINDS}
        for kind in ("float", "float_seq"):  # others are not embedded
            self.fields[kind] = [n for n in self.fields[kind] if n in self.numerical]
        if len(self.fields["float"]) > 1:
            raise ExportError(
                f"description: numerical_features: {', '.join(self.fields['float'])}: RecBole's DIN itself fails on "
                "more than one float field"
            )
        if self.item not in self.fields["token"]:
            raise ExportError(f"description: {self.item} is not a token among item_feature_columns")
        self.n_items = self.size(self.item)
        self.reader = LayerReader(c.checkpoint, c.model, TORCH)

    def size(self, name: str) -> int:
        return check_kind(f"field_sizes.{name}", self.sizes.get(name), int)

    def run(self) -> None:
        self.user()
        self.tables()
        self.side_tables()
        length = self.d.hyper("MAX_ITEM_LIST_LENGTH", int, 50)
        self.c.sequence("hist", length, "KEEP_LAST")
        query = self.slots(Use("", {"scope": "CANDIDATE"}))
        key = self.slots(Use(self.list_suffix, {"scope": "SEQUENCE", "sequence": "hist"}))
        units = self.d.units("mlp_hidden_size", [256, 256, 256])
        width = self.model.width(query)
        source = Sequential("attention.att_mlp_layers.mlp_layers", units, [SIGMOID] * len(units), "mlp_hidden_size")
        layers = read_sequential(self.reader, walk(self.c.checkpoint, source.prefix), source, 4 * width, "att0")
        self.reader.linear(
            "attention.dense.weight", "attention.dense.bias", units[-1], 1, "att0.out", "the attention's score"
        )
        attention = self.model.attention("att", "hist", query, key, layers=layers, scale="SCALE_INVERSE_SQRT_WIDTH")
        products = [term(part(attention, i * self.dim, (i + 1) * self.dim), q) for i, q in enumerate(query)]
        self.tower([term(attention), *[term(q) for q in query], *products], units)

    def tower(self, terms: list[dict[str, Any]], units: list[int]) -> None:
        source = Sequential(
            "dnn_mlp_layers.mlp_layers",
            units,
            [DICE] * len(units),
            "mlp_hidden_size and the item's fields",
            batch_norm=True,
        )
        layers = read_sequential(
            self.reader, walk(self.c.checkpoint, source.prefix), source, 3 * self.model.term_width(terms[:1]), "tower"
        )
        self.reader.linear(
            "dnn_predict_layers.weight", "dnn_predict_layers.bias", units[-1], 1, "head", "the last Linear"
        )
        self.model.spec["tower"] = {"input": terms, "layers": layers, "head_bias": True, "classes": 1}

    # --- Tables ----------------------------------------------------------------------------------------------------

    def user(self) -> None:
        """Requests carry the user; the network does not look."""
        name = self.d.hyper("USER_ID_FIELD", str, "user_id")
        self.model.feature(name, "USER", "ID", id_map=self.model.ignored_ids())
        self.c.checkpoint.ignore_matching(
            r"^embedding_layer\..*_table\.user\.", "user fields are not read by RecBole's DIN"
        )

    def tables(self) -> None:
        for kind, name in (("token", "token_embedding_table"), ("float", "float_embedding_table")):
            fields = self.fields[kind]
            if not fields:
                continue
            source, rows = f"{ITEMS}{name}.item.embedding.weight", sum(self.size(f) for f in fields)
            tensor = self.c.checkpoint.take(
                source,
                (rows, self.dim),
                f"item_{kind}s",
                f"the sum of field_sizes of {', '.join(fields)}, and embedding_size",
            )
            offset = 0
            for field in fields:
                self.model.table(field, tensor, self.size(field), f"item_{kind}s", offset)
                offset += self.size(field)
        for kind in ("token_seq", "float_seq"):
            for j, field in enumerate(self.fields[kind]):
                source = f"{ITEMS}{kind}_embedding_table.item.{j}.weight"
                tensor = self.c.checkpoint.take(
                    source, (self.size(field), self.dim), f"table.{field}", f"field_sizes.{field} and embedding_size"
                )
                if kind == "token_seq":
                    self.model.table(field, tensor)
                else:
                    self.pooled_floats(field, tensor.float64())

    def pooled_floats(self, field: str, rows: np.ndarray) -> None:
        """A list of numbers is a function of the item: one table with a row per item."""
        out = np.zeros((self.n_items, self.dim))
        for item, pairs in enumerate(self.values(field)):
            pairs = np.asarray(pairs, np.float64).reshape(-1, 2)
            check_integers(pairs[:, 1].tolist(), len(rows), f"side table {field}[{item}]: bucket ")
            vectors, counts = pairs[:, :1] * rows[pairs[:, 1].astype(int)], pairs[:, 1] != 0
            if self.pooling == "max":
                out[item] = (vectors - (1 - counts[:, None]) * 1e9).max(axis=0)
            else:
                out[item] = (vectors * counts[:, None]).sum(axis=0) / (
                    counts.sum() + 1e-8 if self.pooling == "mean" else 1
                )
        self.model.table(field, float32(out))

    def values(self, field: str) -> list[Any]:
        values = self.c.column(field, f"RecBole looks {field} up from {self.item}")
        if len(values) != self.n_items:
            raise ExportError(
                f"side table {field}: {len(values)} entries, expected {self.n_items} (field_sizes.{self.item})"
            )
        return values

    def side_tables(self) -> None:
        if self.c.side_tables and self.item in self.c.side_tables:
            if self.values(self.item) != list(range(self.n_items)):
                raise ExportError(f"side table {self.item}: not 0, 1, 2, …; row i must be that of item i")
        for field in self.fields["token"]:
            if field != self.item:
                self.side(field, "ID", value_type="INT64")
                ids = check_integers(self.values(field), self.size(field), f"side table {field}")
                self.model.put(f"side.{field}.values", int64(ids))
        for field in self.fields["token_seq"]:
            self.side(field, "ID_LIST", value_type="INT64")
            lists = [
                [t for t in check_integers(row, self.size(field), f"side table {field}[{i}]") if t != 0]
                for i, row in enumerate(self.values(field))
            ]
            self.model.put(f"side.{field}.values", int64(t for row in lists for t in row))
            self.model.put(f"side.{field}.offsets", int64(np.cumsum([0] + [len(row) for row in lists])))
        for field in self.fields["float"]:
            pairs = [self.pair(field, i, p) for i, p in enumerate(self.values(field))]
            self.side(field, "DENSE", width=1)
            self.model.put(f"side.{field}.values", float32(np.array([[value] for value, _ in pairs])))
            self.side(f"{field}_bucket", "ID", value_type="INT64")
            buckets = check_integers([b for _, b in pairs], self.size(field), f"side table {field}: bucket ")
            self.model.put(f"side.{field}_bucket.values", int64(buckets))

    def pair(self, field: str, item: int, value: Any) -> tuple[float, float]:
        """RecBole keeps a number as (value, bucket)."""
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(x, (int, float)) for x in value):
            raise ExportError(f"side table {field}[{item}]: {value!r} is not [value, bucket]")
        return value[0], value[1]

    def side(self, name: str, kind: str, **more: Any) -> None:
        self.model.spec["side_tables"].append(
            {
                "name": name,
                "key_type": "INT64",
                "rows": self.n_items,
                "kind": kind,
                "missing_key": "MISSING_KEY_ERROR",
                **more,
            }
        )

    # --- An item's vector: tokens, lists of tokens, numbers, lists of numbers --------------------------------------

    def slots(self, use: Use) -> list[str]:
        key = self.item + use.suffix
        self.model.feature(key, kind="ID", id_map=self.model.identity(self.item, self.n_items), **use.where)
        slots = []
        for field in self.fields["token"]:
            name = field + use.suffix
            if field != self.item:
                self.looked_up(name, "ID", field, key, use, id_map=self.model.identity(field, self.size(field)))
            slots.append(self.model.embed(name, field))
        for field in self.fields["token_seq"]:
            name = field + use.suffix
            self.looked_up(
                name, "ID_LIST", field, key, use, id_map=self.model.identity(field, self.size(field)), padding={"id": 0}
            )
            how = {"mean": {"divisor_epsilon": 1e-8}, "sum": {}, "max": {"empty_value": -1e9}}[self.pooling]
            slots.append(self.model.pool(name, field, kind=self.pooling.upper(), skip_padding=True, **how))
        for field in self.fields["float"]:
            name, bucket = field + use.suffix, f"{field}_bucket{use.suffix}"
            self.looked_up(name, "DENSE", field, key, use, width=1)
            self.looked_up(
                bucket,
                "ID",
                f"{field}_bucket",
                key,
                use,
                id_map=self.model.identity(f"{field}_bucket", self.size(field)),
            )
            slots.append(self.model.scaled(name, field, bucket))
        return slots + [self.model.embed(key, field) for field in self.fields["float_seq"]]

    def looked_up(self, name: str, kind: str, side_table: str, key: str, use: Use, **more: Any) -> None:
        self.model.feature(name, kind=kind, side={"side_table": side_table, "key": key}, **use.where, **more)
