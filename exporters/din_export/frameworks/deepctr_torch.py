"""DeepCTR-Torch, shenweichen/DeepCTR-Torch @ f685425: deepctr_torch.models.din.DIN."""
from __future__ import annotations

from typing import Any

from ..conversion import Conversion, activations_for
from ..errors import ExportError
from ..layers import NONE, PRELU, RELU, SIGMOID, TORCH, Activation, LayerReader, LayerSource, dice, dice_from
from ..tensors import Tensor
from .deepctr_columns import Column, DeepCtrNetwork, parse_columns

NAME = "deepctr-torch"
REPO = "shenweichen/DeepCTR-Torch"
ALIASES = ("DeepCTR-Torch", "deepctr_torch", "DeepCTR Torch")
HARMLESS = {"l2_reg_dnn", "l2_reg_embedding", "dnn_dropout", "init_std", "seed", "device", "gpus"}

# Ids travel in one float32 matrix: from here on, two ids may round to the same row.
EXACT_IDS = (1 << 24) + 1

DICE = dice("RUNNING", 1e-8, affine=True)


def activation(name: Any, where: str) -> Activation:
    known = {"sigmoid": SIGMOID, "linear": NONE, "relu": RELU, "prelu": PRELU, "dice": DICE}
    if str(name).lower() not in known:
        raise ExportError(f"description: {where}: {name!r}; DeepCTR-Torch has {', '.join(known)}")
    return known[str(name).lower()]


def convert(c: Conversion) -> None:
    d, checkpoint = c.description, c.checkpoint
    columns = parse_columns(d.get("feature_columns", list), d.hyper("maxlen", int, 0))
    if d.hyper("task", str, "binary") != "binary":
        raise ExportError("description: hyperparameters.task: a regression has no click probability; accepted: binary")
    d.require_padding_behind()
    softmax = d.hyper("att_weight_normalization", bool, False)

    def find_table(column: Column) -> tuple[str, Tensor]:
        last = [x for x in columns if x.embedding_name == column.embedding_name][-1]  # as in their ModuleDict
        name = f"embedding_dict.{column.embedding_name}.weight"
        return name, checkpoint.take(
            name,
            (last.vocabulary_size, last.embedding_dim),
            f"table.{column.embedding_name}",
            f"vocabulary_size and embedding_dim of column {last.name}",
        )

    def id_map(column: Column, rows: int) -> str:
        if column.use_hash:
            raise ExportError(f"description: column {column.name}: use_hash, which DeepCTR-Torch does not have")
        if rows > EXACT_IDS:
            raise ExportError(
                f"description: column {column.name}: vocabulary_size {rows} > {EXACT_IDS}: DeepCTR-Torch rounds "
                "ids above 2^24 to float32, so its scores for them are those of other ids"
            )
        return c.model.identity(column.embedding_name, rows)

    history = d.data.get("history_feature_list", d.hyper("history_feature_list", list, []))
    network = DeepCtrNetwork(c, columns, history, find_table, id_map)
    sequence = check_length(c, network)
    act_units = d.units("att_hidden_size", [64, 16])
    acts = activations_for(d.hyper("att_activation", str, "Dice"), len(act_units), activation, "att_activation")
    attention = {"normalise": "NORMALISE_SOFTMAX", "empty": "EMPTY_POSITIONS_MEAN"} if softmax else {}
    query, _, terms = network.build(False, attention, sequence, lambda x: x.length_name is None)
    reader = LayerReader(checkpoint, c.model, TORCH)
    n_in = 4 * c.model.width(query)
    c.model.spec["attentions"][0]["layers"] = read_dnn(
        reader, "attention.local_att.dnn", n_in, act_units, acts, False, "att0", "att_hidden_size"
    )
    reader.linear(
        "attention.local_att.dense.weight",
        "attention.local_att.dense.bias",
        act_units[-1],
        1,
        "att0.out",
        "the attention's score",
    )
    tower(c, reader, terms)


def check_length(c: Conversion, network: DeepCtrNetwork) -> dict[str, Any]:
    """The attention's length is that of the first id list with a length_name, whatever that list is. Returns what the
    history's sequence needs for it."""
    first = next((x for x in network.varlen if x.length_name is not None), None)
    if first is None:
        raise ExportError(
            "description: no VarLenSparseFeat has a length_name, without which DeepCTR-Torch's DIN does not run"
        )
    measures = network.measured[first.length_name]
    if measures in {x.name for x in network.keys}:
        return {}
    if not any(x.name == measures and c.description.scope(x.name, None) == "USER" for x in network.pooled):
        raise ExportError(
            f"description: column {first.name} is the first id list with a length_name ({first.length_name}), so "
            f"DeepCTR-Torch masks the history by the length of {measures}, not by its own; this server takes that "
            "length from a pooled VarLenSparseFeat whose feature_scopes is user"
        )
    return {"padded_length": network.maxlen, "length_of": measures}


def tower(c: Conversion, reader: LayerReader, terms: list[dict[str, Any]]) -> None:
    d = c.description
    units = d.units("dnn_hidden_units", [256, 128])
    if not units:
        raise ExportError("description: hyperparameters.dnn_hidden_units is empty, which DeepCTR-Torch refuses")
    name = d.hyper("dnn_activation", str, "relu")
    acts = activations_for(name, len(units), activation, "dnn_activation")
    if any(a.kind == "DICE" for a in acts):
        raise ExportError(
            "description: hyperparameters.dnn_activation: dice fails an assertion in DeepCTR-Torch's own "
            "tower (its Dice expects 3 dimensions there), so no such model has run; accepted: relu, sigmoid, "
            "linear, prelu"
        )
    layers = read_dnn(
        reader,
        "dnn",
        c.model.term_width(terms),
        units,
        acts,
        d.hyper("dnn_use_bn", bool, False),
        "tower",
        "dnn_hidden_units and the columns",
    )
    reader.linear("dnn_linear.weight", "", units[-1], 1, "head", "the last Linear, without bias")
    c.model.put("bias.global", c.checkpoint.take("out.bias", (1,), "bias.global", "PredictionLayer's bias"))
    c.model.spec["tower"] = {"input": terms, "layers": layers, "classes": 1, "global_bias": True}


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
    layers = []
    for i, (n_out, act) in enumerate(zip(units, acts, strict=True)):
        source = LayerSource(
            f"{prefix}.linears.{i}.weight",
            f"{prefix}.linears.{i}.bias",
            units=n_out,
            bn=f"{prefix}.bn.{i}" if batch_norm else "",
            act=f"{prefix}.activation_layers.{i}.weight",
        )
        layers.append(reader.layer(source, n_in, act, f"{place}.l{i}", why))
        if act.kind == "DICE":
            dice_from(reader, f"{prefix}.activation_layers.{i}", act, n_out, f"{place}.l{i}", why)
        n_in = n_out
    return layers
