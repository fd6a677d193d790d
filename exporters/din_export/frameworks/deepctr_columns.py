"""What DeepCTR and DeepCTR-Torch share: their feature columns and the order in which the network sees them."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..conversion import Conversion
from ..description import check_kind
from ..errors import ExportError
from ..model import term
from ..tensors import Tensor

MAX_EMPTY = -1e9  # their max pooling subtracts 1e9 from what is masked; the row beside it is lost in float32


@dataclass
class Column:
    type: str  # SparseFeat, VarLenSparseFeat, DenseFeat
    name: str
    vocabulary_size: int = 0
    embedding_dim: int = 4
    embedding_name: str = ""
    use_hash: bool = False
    dtype: str = "int32"
    group_name: str = "default_group"
    maxlen: int = 0
    combiner: str = "mean"
    length_name: str | None = None
    dimension: int = 1


_MEMBERS = {
    "SparseFeat": ("vocabulary_size", "embedding_dim", "embedding_name", "use_hash", "dtype", "group_name"),
    "VarLenSparseFeat": (
        "vocabulary_size",
        "embedding_dim",
        "embedding_name",
        "use_hash",
        "dtype",
        "group_name",
        "maxlen",
        "combiner",
        "length_name",
    ),
    "DenseFeat": ("dimension", "dtype"),
}
# Members that change what the network computes, and that this server cannot follow.
_REFUSED = {
    "weight_name": "weights that requests carry per id",
    "vocabulary_path": "a vocabulary file inside the graph; look ids up before the model",
    "transform_fn": "Python code inside the graph; transform before the model",
}


def parse_columns(entries: list[Any], maxlen: int = 0) -> list[Column]:
    """`maxlen`: of id lists that do not say their own."""
    columns: list[Column] = []
    for i, entry in enumerate(entries):
        where = f"feature_columns[{i}]"
        check_kind(where, entry, dict)
        entry = {**entry.get("sparsefeat", {}), **entry}
        kind = entry.get("type")
        if kind not in _MEMBERS:
            raise ExportError(f"description: {where}.type: {kind!r}; accepted: {', '.join(_MEMBERS)}")
        name = check_kind(f"{where}.name", entry.get("name"), str)
        for member, reason in _REFUSED.items():
            if entry.get(member) is not None:
                raise ExportError(f"description: {where} ({name}).{member}: {reason}; this server cannot reproduce it")
        members = {m: entry[m] for m in _MEMBERS[kind] if entry.get(m) is not None}
        column = Column(kind, name, **members)
        column.embedding_name = column.embedding_name or name
        column.maxlen = column.maxlen or maxlen
        if column.embedding_dim == "auto":
            column.embedding_dim = 6 * int(pow(column.vocabulary_size, 0.25))
        if column.combiner not in ("mean", "sum", "max"):
            raise ExportError(f"description: {where} ({name}).combiner: {column.combiner!r}; accepted: mean, sum, max")
        if kind != "DenseFeat" and check_kind(f"{where} ({name}).vocabulary_size", column.vocabulary_size, int) < 1:
            raise ExportError(f"description: {where} ({name}).vocabulary_size: {column.vocabulary_size} < 1")
        if kind == "VarLenSparseFeat" and check_kind(f"{where} ({name}).maxlen", column.maxlen, int) < 1:
            raise ExportError(f"description: {where} ({name}).maxlen: {column.maxlen} < 1")
        if any(c.name == name for c in columns):
            raise ExportError(f"description: {where}.name: {name!r} is there twice")
        columns.append(column)
    return columns


def grouped(columns: list[Column]) -> list[Column]:
    """In the order of their lookup: by group_name, groups in the order in which they first occur."""
    groups = list(dict.fromkeys(c.group_name for c in columns))
    return [c for group in groups for c in columns if c.group_name == group]


class DeepCtrNetwork:
    """Tables, features, slots and the order of everything. `find_table` knows the framework's tensor names, `id_map`
    the framework's way from ids to rows."""

    def __init__(
        self,
        c: Conversion,
        columns: list[Column],
        history: list[str],
        find_table: Callable[[Column], tuple[str, Tensor]],
        id_map: Callable[[Column, int], str],
    ) -> None:
        self.c, self.model = c, c.model
        self.columns = columns
        self.find_table, self.id_map = find_table, id_map
        self.sparse = [x for x in columns if x.type == "SparseFeat"]
        self.varlen = [x for x in columns if x.type == "VarLenSparseFeat"]
        self.dense = [x for x in columns if x.type == "DenseFeat"]
        history = history or [x.name for x in self.sparse if any(v.name == f"hist_{x.name}" for v in self.varlen)]
        if not history:
            raise ExportError("description: hyperparameters.history_feature_list is empty, so there is no attention")
        self.query = grouped([x for x in self.sparse if x.name in history])
        self.keys = grouped([x for x in self.varlen if x.name in {"hist_" + h for h in history}])
        self.pooled = [x for x in self.varlen if x not in self.keys]
        for name in history:
            if not any(x.name == name for x in self.query) or not any(x.name == "hist_" + name for x in self.keys):
                raise ExportError(
                    f"description: history_feature_list has {name!r}, so the columns need a SparseFeat "
                    f"{name!r} and a VarLenSparseFeat 'hist_{name}'"
                )
        if len({x.maxlen for x in self.keys}) != 1:
            raise ExportError(
                "description: history columns of different maxlen: "
                + ", ".join(f"{x.name} {x.maxlen}" for x in self.keys)
            )

        # Each length feature -> the list that it measures: what the description says, else a history before another list.
        lengths = c.description.get("length_features", dict, {})
        self.measured: dict[str, str] = {}
        for x in self.keys + self.pooled:
            if x.length_name is not None:
                self.measured.setdefault(x.length_name, lengths.get(x.length_name, x.name))
        for x in self.pooled:
            if x.length_name is not None and self.measured[x.length_name] != x.name:
                raise ExportError(
                    f"description: column {x.name} is pooled over the length of {self.measured[x.length_name]} "
                    f"({x.length_name}), not over its own; length from another feature is no knob of a pool; give it a "
                    "length_name of its own"
                )

    @property
    def maxlen(self) -> int:
        return self.keys[0].maxlen

    def table(self, column: Column) -> str:
        if self.model.named("tables", column.embedding_name) is None:
            self.model.table(column.embedding_name, self.find_table(column)[1])
        return column.embedding_name

    def rows(self, column: Column) -> int:
        return self.model.named("tables", self.table(column))["rows"]

    def padding(self, column: Column) -> dict[str, Any]:
        return {"key": "0"} if column.dtype == "string" else {"id": 0}

    def key_padding(self, column: Column) -> dict[str, Any]:
        """What stands behind the history: an id that need not be the mask's 0 where lengths are the mask."""
        pad = self.c.description.padding()[1]
        return self.padding(column) if pad == 0 else {"id": pad}

    def build(
        self,
        pooled_in_groups: bool,
        attention: dict[str, Any],
        sequence: dict[str, Any],
        masked_by_id: Callable[[Column], bool],
    ) -> tuple[list[str], list[str], list[dict[str, Any]]]:
        """Features and slots; (query slots, key slots, tower terms with the attention called "att")."""
        for column in self.columns:
            self._feature(column, masked_by_id)
        query = [self.model.embed(x.name, self.table(x)) for x in self.query]
        keys = [self.model.embed(x.name, self.table(x)) for x in self.keys]
        if self.model.width(query) != self.model.width(keys):
            raise ExportError(
                f"description: the query ({', '.join(x.name for x in self.query)}) is {self.model.width(query)} "
                f"wide, the keys ({', '.join(x.name for x in self.keys)}) {self.model.width(keys)}; the "
                "framework itself fails on that"
            )
        self.c.sequence("hist", self.maxlen, "KEEP_LAST", **sequence)
        name = self.model.attention("att", "hist", query, keys, **attention)
        pooled = grouped(self.pooled) if pooled_in_groups else self.pooled
        vectors = [self.model.embed(x.name, self.table(x)) for x in grouped(self.sparse)]
        vectors += [self._pool(x, masked_by_id(x)) for x in pooled]
        vectors += [name] + [self.model.dense(x.name) for x in self.dense]
        return query, keys, [term(v) for v in vectors]

    def _feature(self, column: Column, masked_by_id: Callable[[Column], bool]) -> None:
        scope = self.c.description.scope(column.name, self._implied_scope(column))
        if column.type == "DenseFeat":
            self.model.feature(column.name, scope, "DENSE", width=column.dimension)
            return
        ids = self.id_map(column, self.rows(column))
        if column in self.keys:
            self.model.feature(column.name, scope, "ID", "hist", id_map=ids, padding=self.key_padding(column))
        elif column in self.pooled:
            if scope == "SEQUENCE":
                raise ExportError(
                    f"description: feature_scopes.{column.name}: sequence, but it is pooled, not attended "
                    "to; say user or candidate"
                )
            padding = self.padding(column) if masked_by_id(column) else None
            self.model.feature(
                column.name,
                scope,
                "ID_LIST",
                id_map=ids,
                padding=padding,
                max_length=column.maxlen,
                keep=self.c.list_keep("KEEP_LAST"),
            )
        else:
            self.model.feature(column.name, scope, "ID", id_map=ids)

    def _implied_scope(self, column: Column) -> str | None:
        if column in self.keys:
            return "SEQUENCE"
        return "CANDIDATE" if column in self.query and column.name not in self.c.description.scopes else None

    def _pool(self, column: Column, masked: bool) -> str:
        how: dict[str, Any] = {"kind": column.combiner.upper()}
        if masked:
            how["skip_padding"] = True
        if column.combiner == "mean":
            how["divisor_epsilon"] = 1e-8
        if column.combiner == "max":
            how["empty_value"] = MAX_EMPTY
        return self.model.pool(column.name, self.table(column), **how)
