"""FuxiCTR, reczoo/FuxiCTR @ 0245987: model_zoo/DIN. Names of 1.1 and 1.2 are accepted, too; 1.0 is not."""
from __future__ import annotations

import re
from typing import Any

from ..checkpoint import Checkpoint
from ..conversion import Conversion, activations_for, torch_activation
from ..description import check_kind
from ..errors import ExportError
from ..folding import add_constant, zero_rows
from ..layers import NONE, SIGMOID, TORCH, Activation, LayerReader, Sequential, dice, read_sequential, walk
from ..model import float32, part, term
from ..tensors import MappedTensor, Tensor

NAME = "fuxictr"
REPO = "reczoo/FuxiCTR"
ALIASES = ("FuxiCTR", "fuxi-ctr")
HARMLESS = {
    "model_id",
    "gpu",
    "attention_dropout",
    "learning_rate",
    "net_dropout",
    "embedding_regularizer",
    "net_regularizer",
    "optimizer",
    "loss",
    "metrics",
    "model",
    "dataset_id",
    "epochs",
    "batch_size",
    "seed",
    "shuffle",
    "monitor",
    "monitor_mode",
    "verbose",
    "num_workers",
    "embedding_dropout",
    "embedding_initializer",
}

DICE = dice("RUNNING", 1e-9)
TYPES = ("categorical", "sequence", "numeric", "embedding", "meta")
ENCODERS = {"MaskedAveragePooling": "MEAN", "MaskedSumPooling": "SUM"}
OLD_NAMES = ("din_query_field", "din_history_field", "attention_units", "attention_activations", "dice_alpha")


def activation(name: Any, where: str) -> Activation:
    return torch_activation(name, where, {"dice": DICE})


def groups(value: Any, where: str) -> list[list[str]]:
    """Their list of fields; a list inside (a tuple there) is one group of concatenated fields."""
    value = [value] if isinstance(value, str) else value
    out = [[g] if isinstance(g, str) else list(check_kind(where, g, list)) for g in value]
    if not out or not all(out):
        raise ExportError(f"description: hyperparameters.{where}: {value!r} names no field")
    return out


def convert(c: Conversion) -> None:
    Fuxi(c).run()


class Fuxi:
    def __init__(self, c: Conversion) -> None:
        self.c, self.d, self.model = c, c.description, c.model
        self.features = feature_map(c)
        for name in OLD_NAMES:
            if name in self.d.hyperparameters:
                raise ExportError(
                    f"description: hyperparameters.{name} is FuxiCTR 1.0, whose attention has no mask and whose "
                    "Dice differs; load the weights into 1.1 or later, or export as canonical"
                )
        if c.checkpoint.names("attention_layers.attention_layer."):
            raise ExportError(
                "tensors attention_layers.attention_layer.*: model_zoo/LongCTR's DIN, whose loader gives the mask and "
                "the sequence; export it as canonical"
            )
        self.names = FuxiNames(c.checkpoint)
        self.dim = self.d.hyper("embedding_dim", int, 10)
        self.targets = groups(
            self.d.hyper("din_target_field", (str, list), [["item_id", "cate_id"]]), "din_target_field"
        )
        self.histories = groups(
            self.d.hyper("din_sequence_field", (str, list), [["click_history", "cate_history"]]), "din_sequence_field"
        )
        self.constants: list[tuple[int, Any]] = []  # (tower term, vector that it lacks)
        self.reader = LayerReader(c.checkpoint, c.model, TORCH)

    def run(self) -> None:
        self.check_groups()
        for name, spec in self.features.items():
            self.declare(name, spec)
        parts = {}  # history field -> its part of the pooled vector
        for g, (targets, histories) in enumerate(zip(self.targets, self.histories)):
            attention = self.attention(g, targets, histories)
            for i, field in enumerate(histories):
                whole = len(histories) == 1
                parts[field] = term(attention if whole else part(attention, i * self.dim, (i + 1) * self.dim))
        terms = []
        for name, spec in self.features.items():
            if spec["type"] == "meta":
                continue
            terms.append(parts[name] if name in parts else self.vector(name, spec, len(terms)))
        self.tower(terms)

    # --- Fields ----------------------------------------------------------------------------------------------------

    def check_groups(self) -> None:
        if len(self.targets) != len(self.histories):
            raise ExportError(
                f"description: din_target_field has {len(self.targets)} groups, din_sequence_field "
                f"{len(self.histories)}"
            )
        seen: set[str] = set()
        for targets, histories in zip(self.targets, self.histories):
            if len(targets) != len(histories):
                raise ExportError(
                    f"description: the group {targets} has {len(targets)} fields, its sequence {histories} "
                    f"{len(histories)}; DIN compares them one by one"
                )
            for name in targets + histories:
                if name not in self.features:
                    raise ExportError(f"description: field {name!r} is in a DIN group, but not in feature_map")
                if self.features[name].get("embedding_dim", self.dim) != self.dim:
                    raise ExportError(
                        f"description: feature_map.{name}.embedding_dim: "
                        f"{self.features[name]['embedding_dim']}, but attention fields have {self.dim}"
                    )
            for name in histories:
                if self.features[name]["type"] != "sequence" or name in seen:
                    raise ExportError(
                        f"description: din_sequence_field {name!r} must be a sequence, and in one group only"
                    )
                if self.features[name].get("feature_encoder"):
                    raise ExportError(
                        f"description: feature_map.{name}.feature_encoder: the attention needs the sequence "
                        "itself; set it to null, as FuxiCTR's DIN does"
                    )
                seen.add(name)
            for name in targets:
                if self.features[name]["type"] != "categorical":
                    raise ExportError(
                        f"description: din_target_field {name!r} is {self.features[name]['type']}, expected "
                        "categorical"
                    )
            if len({self.max_len(name) for name in histories}) != 1:
                raise ExportError(f"description: the fields {histories} have different max_len")

    def max_len(self, name: str) -> int:
        length = check_kind(f"feature_map.{name}.max_len", self.features[name].get("max_len", 0), int)
        if length < 1:
            raise ExportError(f"description: feature_map.{name}.max_len: {length} < 1")
        return length

    def sequence_name(self, field: str) -> str | None:
        """The behaviour list that a history field belongs to."""
        for histories in self.histories:
            if field in histories:
                return "hist" if len(self.histories) == 1 else histories[0]
        return None

    def pad_id(self, name: str) -> int:
        """2.x masks by 0 whatever the padding is; 1.x by the feature's padding_idx."""
        if not self.names.old:
            return 0
        return self.features[name].get("padding_idx") or 0

    @property
    def keep(self) -> str:
        """FuxiCTR cuts where it pads."""
        return "KEEP_FIRST" if self.d.padding()[0] == "post" else "KEEP_LAST"

    def declare(self, name: str, spec: dict[str, Any]) -> None:
        kind = spec["type"]
        if kind == "meta":
            if name in self.d.scopes:
                scope = self.d.scope(name)
                if scope != "SEQUENCE":
                    self.model.feature(name, scope, "ID", id_map=self.model.ignored_ids())
            return
        sequence = self.sequence_name(name)
        implied = "SEQUENCE" if sequence else ("CANDIDATE" if any(name in t for t in self.targets) else None)
        scope = self.d.scope(name, "SEQUENCE" if sequence else (implied if name not in self.d.scopes else None))
        if kind == "numeric":
            self.model.feature(name, scope, "DENSE", width=1)
        elif kind == "embedding":
            self.model.feature(
                name,
                scope,
                "DENSE",
                width=check_kind(f"feature_map.{name}.pretrain_dim", spec.get("pretrain_dim", self.dim), int),
            )
        else:
            table = self.table(name)
            ids = self.model.identity(table, self.model.named("tables", table)["rows"])
            padding = {"id": self.pad_id(name)} if kind == "sequence" else None
            if kind == "categorical":
                self.model.feature(name, scope, "ID", id_map=ids)
            elif sequence or scope == "SEQUENCE":
                self.model.feature(name, "SEQUENCE", "ID", sequence or name, id_map=ids, padding=padding)
            else:
                self.model.feature(
                    name,
                    scope,
                    "ID_LIST",
                    id_map=ids,
                    padding=padding,
                    max_length=self.max_len(name),
                    keep=self.c.list_keep(self.keep),
                )

    # --- Tables and vectors ----------------------------------------------------------------------------------------

    def root(self, name: str) -> str:
        """The feature whose table this one shares: FuxiCTR looks only among those before it in the map."""
        order = list(self.features)
        shared = self.features[name].get("share_embedding")
        if shared in order[: order.index(name)] and self.features[shared]["type"] != "meta":
            return self.root(shared)
        return name

    def table(self, name: str) -> str:
        root = self.root(name)
        if self.model.named("tables", root) is None:
            self.model.table(root, self.table_tensor(root))
        return root

    def table_tensor(self, root: str) -> Tensor:
        sharing = [root] + [n for n in self.features if n != root and self.root(n) == root]
        for name in sharing:
            if f"{self.names.tables}{name}.pretrain_embedding.weight" in self.c.checkpoint:
                raise ExportError(
                    f"tensor {self.names.tables}{name}.pretrain_embedding.weight: a pretrained embedding with "
                    "its own projection; add it up into one embedding table (rows = the feature's vectors in "
                    "eval mode) and export that"
                )
        spec = self.features[root]
        source = self.c.checkpoint.one_of(
            [f"{self.names.tables}{n}.weight" for n in sharing], f"share_embedding makes {', '.join(sharing)} one table"
        )
        shape = (
            check_kind(f"feature_map.{root}.vocab_size", spec.get("vocab_size", 0), int),
            spec.get("embedding_dim", self.dim),
        )
        return self.c.checkpoint.take(
            source, shape, f"table.{root}", f"feature_map.{root}.vocab_size and embedding_dim"
        )

    def vector(self, name: str, spec: dict[str, Any], index: int) -> dict[str, Any]:
        """The tower's input at a feature that no attention pools."""
        kind = spec["type"]
        if kind == "categorical":
            return term(self.model.embed(name, self.table(name)))
        if kind == "numeric":
            return term(self.model.scaled(name, self.numeric_table(name, spec)))
        if kind == "embedding":
            return term(self.projected(name, spec))
        return term(self.pooled(name, spec, index))

    def numeric_table(self, name: str, spec: dict[str, Any]) -> str:
        """Linear(1, d) without bias: a table of one row that the number scales."""
        dim = spec.get("embedding_dim", self.dim)
        weight = self.reader.values(
            f"{self.names.tables}{name}.weight",
            (dim, 1),
            f"table.{name}",
            f"Linear(1, {dim}) of the numeric feature {name}",
        )
        return self.model.table(name, float32(weight.T))

    def projected(self, name: str, spec: dict[str, Any]) -> str:
        """A vector that requests carry, through Linear(pretrain_dim, d) where there is one."""
        raw = self.model.dense(name)
        prefix = self.names.tables.replace("embedding_layers.", "feature_encoders.")
        if spec.get("feature_encoder"):
            raise ExportError(
                f"description: feature_map.{name}.feature_encoder: {spec['feature_encoder']!r} is not in the "
                "family; accepted: none"
            )
        n_in, n_out = self.model.widths[raw], spec.get("embedding_dim", self.dim)
        place = f"pre{len(self.model.spec['pre_towers'])}"
        self.reader.linear(f"{prefix}{name}.weight", "", n_in, n_out, f"{place}.l0", f"the projection of {name}")
        layer = {"units": n_out, "bias": False, "activation": NONE.spec()}
        return self.model.pre_tower(f"{name}.projected", [term(raw)], [layer])

    def pooled(self, name: str, spec: dict[str, Any], index: int) -> str:
        """A sequence outside the attention. The sum goes over all positions; the mean divides by the rows that are not
        zero. With a padding row of zeros that is the usual thing, otherwise padding counts like behaviours."""
        encoder = spec.get("feature_encoder", "layers.MaskedAveragePooling()")
        kind = ENCODERS.get(re.sub(r"^layers\.|\(\)$", "", str(encoder)))
        if kind is None:
            raise ExportError(
                f"description: feature_map.{name}.feature_encoder: {encoder!r}; accepted: {', '.join(ENCODERS)}"
            )
        table, pad, length = self.table(name), self.pad_id(name), self.max_len(name)
        tensor = self.model.tensors[f"table.{table}"]
        zeros = zero_rows(tensor)
        if pad in zeros or (kind == "SUM" and not tensor.gather([pad]).any()):
            others = [r for r in zeros if r != pad]
            if others and kind == "MEAN":
                raise ExportError(
                    f"tensor {self.names.tables}{table}.weight: row {others[0]} is zero like the padding row "
                    f"{pad}; FuxiCTR's mean of {name} would not count it, which this server cannot know"
                )
            return self.pool(name, table, kind, {"skip_padding": True})
        row = tensor.gather([pad])[0]
        scale = 1 / length if kind == "MEAN" else 1.0
        shifted = self.model.table(f"{table} of {name}", MappedTensor(tensor, "F32", lambda rows: (rows - row) * scale))
        self.constants.append((index, row * (length * scale)))
        if zeros and kind == "MEAN":
            raise ExportError(
                f"tensor {self.names.tables}{table}.weight: row {zeros[0]} is zero and the padding row {pad} is "
                f"not; FuxiCTR's mean of {name} divides by a number that depends on it"
            )
        return self.pool(name, shifted, "SUM", {})

    def pool(self, name: str, table: str, kind: str, how: dict[str, Any]) -> str:
        epsilon = (1e-16 if self.names.old else 1e-12) if kind == "MEAN" else 0
        if self.d.scope(name) != "SEQUENCE":
            return self.model.pool(name, table, kind=kind, **how, **({"divisor_epsilon": epsilon} if epsilon else {}))
        valid = [name] if how.get("skip_padding") else []
        self.c.sequence(name, self.max_len(name), self.keep, valid_when_not_padding=valid)
        return self.model.sequence_pool(f"{name}.pooled", name, [self.model.embed(name, table)], kind, epsilon)

    # --- Networks --------------------------------------------------------------------------------------------------

    def attention(self, g: int, targets: list[str], histories: list[str]) -> str:
        d = self.d
        softmax = d.hyper("din_use_softmax", bool, False)
        sequence, length = self.sequence_name(histories[0]), self.max_len(histories[0])
        # Only the first field is looked at; under softmax an empty history is the mean over all padded positions.
        self.c.sequence(
            sequence, length, self.keep, valid_when_not_padding=[histories[0]], padded_length=length if softmax else 0
        )
        out = activation(d.hyper("attention_output_activation", (str, type(None)), None), "attention_output_activation")
        if out not in (NONE, SIGMOID):
            raise ExportError(
                f"description: hyperparameters.attention_output_activation: {out.kind} is outside the family; "
                "accepted: null, sigmoid"
            )
        units = d.units("attention_hidden_units", [64])
        acts = activations_for(
            d.hyper("attention_hidden_activations", (str, list, type(None)), "Dice"),
            len(units),
            activation,
            "attention_hidden_activations",
        )
        prefix = f"attention_layers.{g}.attention_layer.{self.names.mlp}"
        modules = walk(self.c.checkpoint, prefix)
        batch_norm = self.names.old and d.hyper("batch_norm", bool, False) and any(m.kind == "bn" for m in modules)
        source = Sequential(prefix, units, acts, "attention_hidden_units", batch_norm=batch_norm, out_units=1)
        layers = read_sequential(self.reader, modules, source, 4 * self.dim * len(targets), f"att{g}", f"att{g}.out")
        return self.model.attention(
            "att" if len(self.targets) == 1 else f"att.{histories[0]}",
            sequence,
            [self.model.embed(n, self.table(n)) for n in targets],
            [self.model.embed(n, self.table(n)) for n in histories],
            layers=layers,
            out_activation=out.kind,
            normalise="NORMALISE_SOFTMAX" if softmax else "NORMALISE_NONE",
            empty="EMPTY_POSITIONS_MEAN" if softmax else "EMPTY_ZERO",
        )

    def tower(self, terms: list[dict[str, Any]]) -> None:
        d = self.d
        if d.hyper("task", str, "binary_classification") != "binary_classification":
            raise ExportError(
                "description: hyperparameters.task: accepted: binary_classification, the one with a probability"
            )
        units = d.units("dnn_hidden_units", [512, 128, 64])
        acts = activations_for(
            d.hyper("dnn_activations", (str, list, type(None)), "ReLU"), len(units), activation, "dnn_activations"
        )
        source = Sequential(
            f"dnn.{self.names.mlp}",
            units,
            acts,
            "dnn_hidden_units and the feature_map",
            batch_norm=d.hyper("batch_norm", bool, False),
            out_units=1,
        )
        layers = read_sequential(
            self.reader, walk(self.c.checkpoint, source.prefix), source, self.model.term_width(terms), "tower", "head"
        )
        network = {"input": terms, "layers": layers, "head_bias": True, "classes": 1}
        self.model.spec["tower"] = network
        for index, constant in self.constants:
            add_constant(self.model, network, "tower", self.model.term_width(terms[:index]), constant)


class FuxiNames:
    """1.x: embedding_layer.embedding_layer.<f>, .dnn.; 2.x: embedding_layer.embedding_layers.<f>, .mlp."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.old = bool(checkpoint.names("dnn.dnn."))
        self.mlp = "dnn" if self.old else "mlp"
        self.tables = next(
            (
                p
                for p in (
                    "embedding_layer.embedding_layers.",
                    "embedding_layer.embedding_layer.embedding_layers.",
                    "embedding_layer.embedding_layer.",
                )
                if checkpoint.names(p)
            ),
            "embedding_layer.embedding_layers.",
        )


def feature_map(c: Conversion) -> dict[str, dict[str, Any]]:
    """{name: spec} in order, also from the list form that FuxiCTR saves."""
    given = c.description.get("feature_map", (dict, list))
    if isinstance(given, dict) and isinstance(given.get("features"), list):
        given = given["features"]
    if isinstance(given, dict):
        entries = list(given.items())
    else:
        entries = []
        for i, entry in enumerate(given):
            entry = check_kind(f"feature_map[{i}]", entry, dict)
            entries += [(entry["name"], entry)] if isinstance(entry.get("name"), str) else list(entry.items())
    features = {}
    for name, spec in entries:
        spec = dict(check_kind(f"feature_map.{name}", spec, dict))
        if spec.get("type") not in TYPES:
            raise ExportError(
                f"description: feature_map.{name}.type: {spec.get('type')!r}; accepted: {', '.join(TYPES)}"
            )
        features[name] = spec
    return features
