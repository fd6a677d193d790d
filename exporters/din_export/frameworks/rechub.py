"""torch-rechub, datawhalechina/torch-rechub @ 5a73b2e: torch_rechub.models.ranking.din.DIN."""
from __future__ import annotations

import math
from typing import Any

from ..conversion import Conversion, activations_for, torch_activation
from ..description import check_kind
from ..errors import ExportError
from ..folding import add_constant
from ..layers import (
    LEAKY_DEFAULT,
    PRELU,
    RELU,
    SIGMOID,
    TORCH,
    Activation,
    LayerReader,
    Sequential,
    dice,
    read_sequential,
    walk,
)
from ..model import term
from ..tensors import MappedTensor

NAME = "torch-rechub"
REPO = "datawhalechina/torch-rechub"
ALIASES = ("torch-rechub", "torch_rechub", "rechub")
HARMLESS: set[str] = set()

DICE = dice("PER_ROW", 1e-3)
MAX_LENGTH = 50  # of generate_seq_feature


def activation(name: Any, where: str) -> Activation:
    known = {"sigmoid": SIGMOID, "relu": RELU, "dice": DICE, "prelu": PRELU, "leakyrelu": LEAKY_DEFAULT}
    if str(name).lower() not in known:
        raise ExportError(f"description: {where}: {name!r}; torch-rechub's DIN has {', '.join(known)}")
    return torch_activation(name, where, known)


def convert(c: Conversion) -> None:
    Rechub(c).run()


class Rechub:
    def __init__(self, c: Conversion) -> None:
        self.c, self.d, self.model = c, c.description, c.model
        self.features = self._columns("features")
        self.histories = self._columns("history_features")
        self.targets = self._columns("target_features")
        self.all = {f["name"]: f for f in self.features + self.histories + self.targets}
        self.reader = LayerReader(c.checkpoint, c.model, TORCH)
        self.constants: list[tuple[int, Any]] = []  # (tower term, vector that it lacks)

    def _columns(self, key: str) -> list[dict[str, Any]]:
        out = []
        for i, feature in enumerate(self.d.get(key, list)):
            where = f"{key}[{i}]"
            check_kind(where, feature, dict)
            name = check_kind(f"{where}.name", feature.get("name"), str)
            if feature.get("type") == "DenseFeature":
                raise ExportError(
                    f"description: {where} ({name}): a DenseFeature, which torch-rechub's DIN counts in the "
                    "tower's width and then leaves out; no such model has run"
                )
            if feature.get("type") not in ("SparseFeature", "SequenceFeature"):
                raise ExportError(
                    f"description: {where} ({name}).type: {feature.get('type')!r}; accepted: SparseFeature, "
                    "SequenceFeature"
                )
            rows = check_kind(f"{where} ({name}).vocab_size", feature.get("vocab_size"), int)
            dim = feature.get("embed_dim") or math.floor(6 * rows**0.25)
            out.append({**feature, "embed_dim": dim})
        if not out:
            raise ExportError(f"description: {key} is empty; torch-rechub's DIN fails without one")
        return out

    def run(self) -> None:
        if len({f["embed_dim"] for f in self.all.values()}) != 1:
            raise ExportError(
                "description: features of different embed_dim, which torch-rechub cannot put side by side: "
                + ", ".join(f"{f['name']} {f['embed_dim']}" for f in self.all.values())
            )
        if len(self.targets) < len(self.histories):
            raise ExportError(
                f"description: {len(self.histories)} history_features, but {len(self.targets)} target_features; "
                "they are matched by position"
            )
        for feature in [*self.features, *self.histories, *self.targets]:
            self.declare(feature)
        attentions = [self.attention(g, h, t) for g, (h, t) in enumerate(zip(self.histories, self.targets))]
        vectors = attentions
        for feature in self.targets + self.features:
            vectors = [*vectors, self.vector(feature, len(vectors))]
        self.tower([term(v) for v in vectors])

    # --- Fields ----------------------------------------------------------------------------------------------------

    def table(self, feature: dict[str, Any]) -> str:
        owner = feature.get("shared_with") or feature["name"]
        if owner not in self.all or self.all[owner].get("shared_with"):
            raise ExportError(
                f"description: {feature['name']}.shared_with: {owner!r} is no feature with a table of its own"
            )
        if self.model.named("tables", owner) is None:
            shape = (self.all[owner]["vocab_size"], self.all[owner]["embed_dim"])
            self.model.table(
                owner,
                self.c.checkpoint.take(
                    f"embedding.embed_dict.{owner}.weight",
                    shape,
                    f"table.{owner}",
                    f"vocab_size and embed_dim of {owner}",
                ),
            )
        return owner

    def padded_length(self, name: str) -> int:
        lengths = self.d.get("padded_lengths", dict, {})
        length = check_kind(f"padded_lengths.{name}", lengths.get(name, MAX_LENGTH), int)
        if length < 1:
            raise ExportError(f"description: padded_lengths.{name}: {length} < 1")
        return length

    def sequence_name(self, name: str) -> str:
        return "hist" if len(self.histories) == 1 else name

    def declare(self, feature: dict[str, Any]) -> None:
        name = feature["name"]
        table = self.table(feature)
        ids = self.model.identity(table, self.model.named("tables", table)["rows"])
        pad = {"id": self.d.padding()[1]}
        if any(name == h["name"] for h in self.histories):
            if feature["type"] != "SequenceFeature" or feature.get("pooling", "mean") != "concat":
                raise ExportError(
                    f"description: history feature {name}: pooling {feature.get('pooling', 'mean')!r}; the "
                    "attention needs a SequenceFeature with pooling 'concat'"
                )
            self.d.scope(name, "SEQUENCE")
            if self.model.named("features", name) is None:
                length = self.padded_length(name)
                # No mask at all: padding is attended to, so the padded length is part of the model.
                self.c.sequence(
                    self.sequence_name(name), length, "KEEP_FIRST", invalid="PARTICIPATE", padded_length=length
                )
                self.model.feature(name, "SEQUENCE", "ID", self.sequence_name(name), id_map=ids, padding=pad)
        elif feature["type"] == "SequenceFeature":
            if feature.get("pooling", "mean") not in ("mean", "sum"):
                raise ExportError(
                    f"description: {name}.pooling: {feature['pooling']!r} leaves a sequence that nothing attends "
                    "to; accepted: mean, sum"
                )
            self.model.feature(
                name,
                self.d.scope(name),
                "ID_LIST",
                id_map=ids,
                padding=self.list_padding(feature),
                max_length=self.padded_length(name),
                keep=self.c.list_keep("KEEP_FIRST"),
            )
        else:
            self.model.feature(name, self.d.scope(name), "ID", id_map=ids)

    def list_padding(self, feature: dict[str, Any]) -> dict[str, int]:
        return {"id": self.d.padding()[1] if feature.get("padding_idx") is None else feature["padding_idx"]}

    def vector(self, feature: dict[str, Any], index: int) -> str:
        name, table = feature["name"], self.table(feature)
        if feature["type"] == "SparseFeature":
            return self.model.embed(name, table)
        mean, pad = feature.get("pooling", "mean") == "mean", self.d.padding()[1]
        if feature.get("padding_idx") is not None:
            if feature["padding_idx"] != pad:
                raise ExportError(
                    f"description: {name}.padding_idx: {feature['padding_idx']}, but padding.pad_id is {pad}, so "
                    "padding would be pooled like ids; make them equal"
                )
            how = {
                "kind": "MEAN" if mean else "SUM",
                "skip_padding": True,
                **({"divisor_epsilon": 1e-16} if mean else {}),
            }
            return self.model.pool(name, table, **how)
        # Without padding_idx nothing is masked: padding is pooled like ids, up to the padded length.
        length, tensor = self.padded_length(name), self.model.tensors[f"table.{table}"]
        row, scale = tensor.gather([pad])[0], 1 / length if mean else 1.0
        shifted = self.model.table(f"{table} of {name}", MappedTensor(tensor, "F32", lambda rows: (rows - row) * scale))
        self.constants.append((index, row * (length * scale)))
        return self.model.pool(name, shifted, kind="SUM")

    # --- Networks --------------------------------------------------------------------------------------------------

    def params(self, key: str, accepted: tuple[str, ...]) -> dict[str, Any]:
        params = self.d.hyper(key, dict, {})
        for name in params:
            if name not in accepted:
                raise ExportError(
                    f"description: hyperparameters.{key}.{name}: torch-rechub's DIN takes {', '.join(accepted)}"
                )
        return params

    def attention(self, g: int, history: dict[str, Any], target: dict[str, Any]) -> str:
        params = self.params("attention_mlp_params", ("dims", "activation", "dropout", "use_softmax"))
        units = params.get("dims") or [36]
        acts = activations_for(
            params.get("activation", "dice"), len(units), activation, "attention_mlp_params.activation"
        )
        if target["type"] != "SparseFeature":
            raise ExportError(
                f"description: target feature {target['name']} is a {target['type']}, expected SparseFeature"
            )
        source = Sequential(
            f"attention_layers.{g}.attention.mlp",
            units,
            acts,
            "attention_mlp_params.dims",
            batch_norm=True,
            out_units=1,
        )
        layers = read_sequential(
            self.reader,
            walk(self.c.checkpoint, source.prefix),
            source,
            4 * history["embed_dim"],
            f"att{g}",
            f"att{g}.out",
        )
        name = history["name"]
        return self.model.attention(
            "att" if len(self.histories) == 1 else f"att.{name}",
            self.sequence_name(name),
            [self.model.embed(target["name"], self.table(target))],
            [self.model.embed(name, self.table(history))],
            layers=layers,
            normalise="NORMALISE_SOFTMAX" if params.get("use_softmax", False) else "NORMALISE_NONE",
        )

    def tower(self, terms: list[dict[str, Any]]) -> None:
        params = self.params("mlp_params", ("dims", "activation", "dropout", "output_layer"))
        if str(params.get("activation", "dice")).lower() != "dice":
            raise ExportError(
                f"description: hyperparameters.mlp_params.activation: {params['activation']!r}; the tower of "
                "torch-rechub's DIN is dice, and the framework itself refuses another one"
            )
        if not params.get("output_layer", True):
            raise ExportError("description: hyperparameters.mlp_params.output_layer: false leaves no logit")
        units = params.get("dims") or []
        source = Sequential(
            "mlp.mlp", units, [DICE] * len(units), "mlp_params.dims and the features", batch_norm=True, out_units=1
        )
        layers = read_sequential(
            self.reader, walk(self.c.checkpoint, source.prefix), source, self.model.term_width(terms), "tower", "head"
        )
        network = {"input": terms, "layers": layers, "head_bias": True, "classes": 1}
        self.model.spec["tower"] = network
        for index, constant in self.constants:
            add_constant(self.model, network, "tower", self.model.term_width(terms[:index]), constant)
