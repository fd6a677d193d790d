"""DeepCTR on TensorFlow and Keras, shenweichen/DeepCTR @ 1b5fe40: deepctr/models/sequence/din.py.

A Keras layer's number depends on what the program built before, so names are found by their form.
"""
from __future__ import annotations

import re
from typing import Any

from ..checkpoint import Checkpoint
from ..conversion import Conversion, activations_for
from ..errors import ExportError
from ..layers import NONE, PRELU, RELU, SIGMOID, SILU, TANH, TENSORFLOW, Activation, LayerReader, LayerSource, dice
from ..tensors import Tensor
from .deepctr_columns import Column, DeepCtrNetwork, parse_columns

NAME = "deepctr"
REPO = "shenweichen/DeepCTR"
ALIASES = ("DeepCTR", "DeepCTR (TF/Keras)", "deepctr-tf", "deepctr_tf")
HARMLESS = {"l2_reg_dnn", "l2_reg_embedding", "dnn_dropout", "seed"}

DICE = dice("RUNNING", 1e-9)
# Keras' activations; PReLU is a layer class that a program may pass.
ACTIVATIONS = {
    "relu": RELU,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "linear": NONE,
    "swish": SILU,
    "silu": SILU,
    "dice": DICE,
    "prelu": PRELU,
    "leaky_relu": Activation("LEAKY_RELU", 0.2),
    "leakyrelu": Activation("LEAKY_RELU", 0.3),
}


def activation(name: Any, where: str) -> Activation:
    if name is None:
        return NONE
    if str(name).lower() not in ACTIVATIONS:
        raise ExportError(f"description: {where}: {name!r} is outside the family; accepted: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[str(name).lower()]


def convert(c: Conversion) -> None:
    d = c.description
    if d.hyper("task", str, "binary") != "binary":
        raise ExportError("description: hyperparameters.task: a regression has no click probability; accepted: binary")
    names = KerasNames(c.checkpoint)
    maxlen = d.hyper("maxlen", int, 0)
    if "feature_columns" in d.data:
        columns = parse_columns(d.get("feature_columns", list), maxlen)
    else:
        columns = columns_from_scopes(c, names, maxlen)
    history = d.data.get("history_feature_list") or d.hyper("history_feature_list", list, [])
    history = history or [x.name.removeprefix("hist_") for x in columns if x.name.startswith("hist_")]
    if d.padding()[1] != 0:
        raise ExportError(
            f"description: padding.pad_id: {d.padding()[1]}, but DeepCTR masks id 0, so such padding would count"
        )
    tables = KerasTables(c.checkpoint, columns)

    def id_map(column: Column, rows: int) -> str:
        string = column.dtype == "string"
        if string and not column.use_hash:
            raise ExportError(f"description: column {column.name}: dtype string needs use_hash")
        if not column.use_hash:
            return c.model.identity(column.embedding_name, rows)
        masked = column.type == "VarLenSparseFeat" or column.name in history
        function = "FARMHASH64_DECIMAL_SKIP_ZERO" if masked else "FARMHASH64_DECIMAL"
        return c.model.id_map(
            column.embedding_name, {"hash": {"function": function, "size": rows}}, "STRING" if string else "INT64", None
        )

    network = DeepCtrNetwork(c, columns, history, tables.find, id_map)
    reader = LayerReader(c.checkpoint, c.model, TENSORFLOW)
    tower(c, names, reader, attention(c, names, network, reader))


def attention(c: Conversion, names: KerasNames, network: DeepCtrNetwork, reader: LayerReader) -> list[dict[str, Any]]:
    """Features, slots and the attention; returns the tower's input."""
    d = c.description
    units = d.units("att_hidden_size", [80, 40])
    if not units:
        raise ExportError("description: hyperparameters.att_hidden_size is empty; this server needs one hidden layer")
    softmax = d.hyper("att_weight_normalization", bool, False)
    how = {"normalise": "NORMALISE_SOFTMAX", "empty": "EMPTY_POSITIONS_MEAN"} if softmax else {}
    # Keras' mask_zero: a position counts only where no field is 0.
    sequence: dict[str, Any] = {"valid_when_not_padding": [x.name for x in network.keys]}
    if softmax:
        sequence["padded_length"] = network.maxlen
    query, _, terms = network.build(True, how, sequence, lambda x: x.length_name is None)
    names_of = d.hyper("att_activation", (str, list, type(None)), "dice")
    acts = activations_for(names_of, len(units), activation, "att_activation")
    n_in = 4 * c.model.width(query)
    layers = read_dnn(reader, names.attention_dnn, n_in, units, acts, False, "att0", "att_hidden_size")
    c.model.spec["attentions"][0]["layers"] = layers
    score = names.attention
    reader.linear(f"{score}/kernel", f"{score}/bias", units[-1], 1, "att0.out", "the attention's score")
    return terms


def tower(c: Conversion, names: KerasNames, reader: LayerReader, terms: list[dict[str, Any]]) -> None:
    d = c.description
    units = d.units("dnn_hidden_units", [256, 128, 64])
    names_of = d.hyper("dnn_activation", (str, list, type(None)), "relu")
    acts = activations_for(names_of, len(units), activation, "dnn_activation")
    n_in, batch_norm = c.model.term_width(terms), d.hyper("dnn_use_bn", bool, False)
    why = "dnn_hidden_units and the columns"
    layers = read_dnn(reader, names.tower, n_in, units, acts, batch_norm, "tower", why)
    reader.linear(names.head, "", (units or [n_in])[-1], 1, "head", "the last Dense, without bias")
    c.model.put("bias.global", c.checkpoint.take(names.bias, (1,), "bias.global", "PredictionLayer's bias"))
    c.model.spec["tower"] = {"input": terms, "layers": layers, "classes": 1, "global_bias": True}


def _number(name: str) -> int:
    """Keras' running number: dice, dice_1, dice_2."""
    found = re.search(r"_(\d+)$", name)
    return int(found[1]) if found else 0


class KerasNames:
    """Prefixes of the parts of the network."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._names = list(checkpoint.tensors)
        self.attention = self._one(r"(.*local_activation_unit(?:_\d+)?)/kernel", "the attention's score")
        inside = re.escape(self.attention)
        self.attention_dnn = self._one(rf"({inside}/dnn(?:_\d+)?)/kernel0", "the attention's first layer")
        self.tower = self._one(
            rf"(?!{inside}/)((?:.*/)?dnn(?:_\d+)?)/kernel0", "the tower's first layer", optional=True
        )
        self.head = self._one(r"((?:.*/)?dense(?:_\d+)?/kernel)", "the last Dense")
        self.bias = self._one(r"((?:.*/)?prediction_layer(?:_\d+)?/global_bias)", "PredictionLayer's bias")

    def _one(self, pattern: str, what: str, optional: bool = False) -> str:
        found = [m[1] for m in (re.fullmatch(pattern, n) for n in self._names) if m]
        if not found and optional:
            return "dnn"
        if len(found) != 1:
            raise ExportError(
                f"{what}: {len(found)} tensors are named like it ({', '.join(found) or pattern}), expected one; "
                "one file must hold the weights of one DIN"
            )
        return found[0]


class KerasTables:
    """Embedding layers: sparse_emb_<embedding_name>, or sparse_seq_emb_<embedding_name> for a table of lists alone;
    before commit a827877 a shared table was in sparse_seq_emb_<the history's name>."""

    def __init__(self, checkpoint: Checkpoint, columns: list[Column]) -> None:
        self._checkpoint, self._columns = checkpoint, columns

    def find(self, column: Column) -> tuple[str, Tensor]:
        name = column.embedding_name
        sharing = [x for x in self._columns if x.embedding_name == name and x.type != "DenseFeat"]
        stems = [f"sparse_emb_{name}", f"sparse_seq_emb_{name}"]
        stems += [f"sparse_seq_emb_{x.name}" for x in sharing] + [f"sparse_emb_{x.name}" for x in sharing]
        wanted = [f"{stem}/embeddings" for stem in dict.fromkeys(stems)]
        found = [n for w in wanted for n in self._checkpoint.tensors if n == w or n.endswith("/" + w)]
        shape = (column.vocabulary_size, column.embedding_dim)
        source = self._checkpoint.one_of(found or wanted, f"the table of {', '.join(x.name for x in sharing)}")
        return source, self._checkpoint.take(
            source, shape, f"table.{name}", f"vocabulary_size and embedding_dim of column {column.name}"
        )


def columns_from_scopes(c: Conversion, names: KerasNames, maxlen: int) -> list[Column]:
    """A description without feature_columns: a column is what its scope and its table make it."""
    d, checkpoint = c.description, c.checkpoint
    columns: list[Column] = []
    lengths = d.get("length_features", dict, {})
    for name in (n for n in d.scopes if n not in lengths):  # the mask is by id, lengths are not looked at
        own = next(
            (
                n
                for s in ("sparse_emb_", "sparse_seq_emb_")
                for n in checkpoint.tensors
                if re.fullmatch(rf"(.*/)?{s}{re.escape(name)}/embeddings", n)
            ),
            None,
        )
        history = d.scope(name) == "SEQUENCE"
        if own is None and not history:
            columns.append(Column("DenseFeat", name, dimension=0))
            continue
        shared = name.removeprefix("hist_")
        source = own or next(
            (n for n in checkpoint.tensors if re.fullmatch(rf"(.*/)?sparse_emb_{re.escape(shared)}/embeddings", n)),
            None,
        )
        if source is None:
            raise ExportError(
                f"description: feature_scopes.{name}: no table sparse_emb_{shared} or sparse_seq_emb_{name} in "
                f"{checkpoint.path}"
            )
        rows, dim = checkpoint.shape(source)
        if (history or "sparse_seq_emb_" in source) and maxlen < 1:
            raise ExportError(
                "description: hyperparameters.maxlen is missing, and there are no feature_columns to say it"
            )
        columns.append(
            Column(
                "VarLenSparseFeat" if history or "sparse_seq_emb_" in source else "SparseFeat",
                name,
                rows,
                dim,
                name if own else shared,
                maxlen=maxlen,
            )
        )
    give_dense_widths(checkpoint, names, columns)
    return columns


def give_dense_widths(checkpoint: Checkpoint, names: KerasNames, columns: list[Column]) -> None:
    """Dense columns share what the tower's first layer has beyond the vectors."""
    dense = [x for x in columns if x.dimension == 0]
    first = f"{names.tower}/kernel0"
    width = checkpoint.shape(first if first in checkpoint else names.head)[0]
    rest = width - sum(x.embedding_dim for x in columns if x.type != "DenseFeat")
    if dense and (rest < len(dense) or (len(dense) > 1 and rest != len(dense))):
        raise ExportError(
            f"description: {rest} inputs of the tower are left for the dense features "
            f"{', '.join(x.name for x in dense)}; give feature_columns, which say the dimension of each"
        )
    for column in dense:
        column.dimension = rest if len(dense) == 1 else 1


def read_dnn(
    reader: LayerReader,
    prefix: str,
    n_in: int,
    units: list[int],
    acts: list[Activation],
    batch_norm: bool,
    place: str,
    why: str,
) -> list[dict[str, Any]]:
    def numbered(pattern: str) -> list[str]:
        found = {
            m[1]
            for m in (re.fullmatch(rf"({re.escape(prefix)}/{pattern})/.*", n) for n in reader.checkpoint.tensors)
            if m
        }
        return sorted(found, key=_number)

    norms = numbered(r"batch_normalization(?:_\d+)?") if batch_norm else []
    dices, prelus = numbered(r"dice(?:_\d+)?"), numbered(r"p_?re_?lu(?:_\d+)?")
    if batch_norm and len(norms) != len(units):
        raise ExportError(f"{prefix}: {len(norms)} batch_normalization layers, expected {len(units)} (dnn_use_bn)")
    layers, n_dice, n_prelu = [], 0, 0
    for i, (n_out, act) in enumerate(zip(units, acts, strict=True)):
        source = LayerSource(f"{prefix}/kernel{i}", f"{prefix}/bias{i}", norms[i] if norms else "", units=n_out)
        if act.kind == "PRELU":
            source.act = (prelus[n_prelu] if n_prelu < len(prelus) else f"{prefix}/p_re_lu") + "/alpha"
            n_prelu += 1
        layers.append(reader.layer(source, n_in, act, f"{place}.l{i}", why))
        if act.kind == "DICE":
            at = dices[n_dice] if n_dice < len(dices) else f"{prefix}/dice"
            n_dice += 1
            reader.alpha(f"{at}/dice_alpha", n_out, f"{place}.l{i}.act.alpha", why)
            inner = [
                m[1]
                for m in (
                    re.fullmatch(rf"({re.escape(at)}/batch_normalization(?:_\d+)?)/moving_mean", n)
                    for n in reader.checkpoint.tensors
                )
                if m
            ]
            reader.statistics(
                inner[0] if inner else f"{at}/batch_normalization", n_out, f"{place}.l{i}.act", why, False
            )
        n_in = n_out
    return layers
