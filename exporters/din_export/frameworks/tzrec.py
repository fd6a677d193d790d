"""TorchEasyRec, alibaba/TorchEasyRec @ 54cac316: tzrec.models.multi_tower_din.MultiTowerDIN."""
from __future__ import annotations

import re
from typing import Any

from ..conversion import Conversion, torch_activation
from ..description import check_kind
from ..errors import ExportError
from ..layers import TORCH, Activation, LayerReader, Sequential, dice, read_sequential, walk
from ..model import term

NAME = "torcheasyrec"
REPO = "alibaba/TorchEasyRec"
ALIASES = ("TorchEasyRec", "tzrec", "torch-easyrec", "MultiTowerDIN")
HARMLESS = {"dropout_ratio"}

DICE = dice("RUNNING", 1e-5)
SEQUENCE_LENGTH = 100
MLP_MEMBERS = ("hidden_units", "activation", "use_bn", "bias", "dropout_ratio", "use_ln")


def activation(name: Any, where: str) -> Activation:
    """A class path with its arguments: "nn.LeakyReLU(negative_slope=0.2)"."""
    text = str(name).strip() if name is not None else ""
    found = re.fullmatch(r"([\w.]+)(?:\((.*)\))?", text)
    if text and not found:
        raise ExportError(f"description: {where}: activation {name!r} cannot be read")
    act = torch_activation(found[1] if found else "", where, {"dice": DICE})
    arguments = [a for a in ((found[2] or "") if found else "").replace(" ", "").split(",") if a]
    if act.kind == "LEAKY_RELU":
        for argument in list(arguments):
            if argument.startswith("negative_slope="):
                act = Activation("LEAKY_RELU", float(argument.partition("=")[2]))
                arguments.remove(argument)
    arguments = [a for a in arguments if not a.startswith(("inplace=", "num_parameters=", "init="))]
    if arguments:
        raise ExportError(f"description: {where}: activation {name!r}: the argument {arguments[0]} is not known here")
    return act


def convert(c: Conversion) -> None:
    EasyRec(c).run()


class EasyRec:
    def __init__(self, c: Conversion) -> None:
        self.c, self.d, self.model = c, c.description, c.model
        self.groups: dict[str, list[str]] = self.d.get("feature_groups", dict)
        self.dims: dict[str, list[int]] = self.d.get("feature_dims", dict)
        self.poolings = self.d.get("poolings", dict, {})
        self.embedding_names = self.d.get("embedding_names", dict, {})
        self.reader = LayerReader(c.checkpoint, c.model, TORCH)
        self.sequence_of: dict[str, str] = {}  # sequence feature -> its behaviour list
        self.refuse_other_models()

    def refuse_other_models(self) -> None:
        for part, reason in (
            ("seq_encoders", "a sequence encoder inside a group"),
            ("mc_ebc", "managed collision tables (zch), which map ids while they train"),
            ("dense_ec", "AutoDis or MLP embeddings of numbers"),
        ):
            found = next((n for n in self.c.checkpoint.names("embedding_group.") if part in n), None)
            if found:
                raise ExportError(f"tensor {found}: {reason}; this server's family has no such thing")

    def run(self) -> None:
        towers = [g for g in self.groups if "." not in g]
        dins = list(dict.fromkeys(g.rpartition(".")[0] for g in self.groups if "." in g))
        if not dins:
            raise ExportError("description: feature_groups has no <group>.query and <group>.sequence, so no DIN tower")
        for g in dins:
            for end in ("query", "sequence"):
                if not self.groups.get(f"{g}.{end}"):
                    raise ExportError(f"description: feature_groups.{g}.{end} is missing or empty")
        self.declare(towers, dins)
        terms = [term(self.tower(i, name)) for i, name in enumerate(towers)]
        terms += [term(self.din(i, name, len(dins))) for i, name in enumerate(dins)]
        self.head(terms)

    # --- Features --------------------------------------------------------------------------------------------------

    def dim(self, name: str) -> tuple[int, int]:
        """(rows, width); 0 rows: numbers."""
        entry = self.dims.get(name)
        if not isinstance(entry, list) or len(entry) != 2:
            raise ExportError(f"description: feature_dims.{name}: {entry!r} is not [rows, width] (0 rows for numbers)")
        return check_kind(f"feature_dims.{name}", entry[0], int), check_kind(f"feature_dims.{name}", entry[1], int)

    def declare(self, towers: list[str], dins: list[str]) -> None:
        length = self.d.hyper("sequence_length", int, SEQUENCE_LENGTH)
        for g in dins:
            fields = self.groups[f"{g}.sequence"]
            name = next((self.sequence_of[f] for f in fields if f in self.sequence_of), g)
            if self.model.named("sequences", name) is None:
                self.c.sequence(name, length, "KEEP_FIRST", fixed=False)
            for field in fields:
                if self.sequence_of.setdefault(field, name) != name:
                    raise ExportError(
                        f"description: feature_groups.{g}.sequence mixes the lists {name} and "
                        f"{self.sequence_of[field]}"
                    )
        for fields in self.groups.values():
            for field in fields:
                self.feature(field)
        for field in self.d.scopes:
            if self.model.named("features", field) is None and self.d.scope(field) != "SEQUENCE":
                self.model.feature(field, self.d.scope(field), "ID", id_map=self.model.ignored_ids())

    def feature(self, name: str) -> None:
        rows, width = self.dim(name)
        sequence = self.sequence_of.get(name)
        scope = self.d.scope(name, "SEQUENCE" if sequence else None)
        if rows == 0:
            self.model.feature(name, scope, "DENSE", sequence, width=width)
            return
        ids = self.model.identity(name, rows)
        if name in self.poolings:
            self.model.feature(name, scope, "ID_LIST", sequence, id_map=ids)
        else:
            self.model.feature(name, scope, "ID", sequence, id_map=ids)

    def slot(self, field: str, in_sequence: bool) -> str:
        """The vector of a feature in a deep group, or in a query or sequence: different tables, nothing is shared."""
        rows, width = self.dim(field)
        if rows == 0:
            return self.model.dense(field)
        table = self.table(field, rows, width, in_sequence)
        if field not in self.poolings:
            return self.model.embed(field, table)
        kind = str(self.poolings[field]).upper()
        if kind not in ("SUM", "MEAN") or in_sequence:
            raise ExportError(
                f"description: poolings.{field}: {self.poolings[field]!r}; accepted: sum, mean, outside sequences"
            )
        return self.model.pool(field, table, kind=kind)

    def table(self, field: str, rows: int, width: int, in_sequence: bool) -> str:
        embedding = self.embedding_names.get(field, f"{field}_emb")
        name = f"seq.{embedding}" if in_sequence else embedding
        if self.model.named("tables", name) is not None:
            return name
        inside = (
            rf"seq_emb_impls\.[^.]+\.ec_dict(?:_user)?\.{width}\.embeddings"
            if in_sequence
            else r"emb_impls\.[^.]+\.ebc(?:_user)?\.embedding_bags"
        )
        pattern = re.compile(rf"embedding_group\.{inside}\.{re.escape(embedding)}\.weight")
        found = [n for n in self.c.checkpoint.tensors if pattern.fullmatch(n)]
        usual = (
            f"embedding_group.seq_emb_impls.__BASE__.ec_dict.{width}.embeddings.{embedding}.weight"
            if in_sequence
            else f"embedding_group.emb_impls.__BASE__.ebc.embedding_bags.{embedding}.weight"
        )
        tensor = self.c.checkpoint.take(
            found[0] if found else usual, (rows, width), f"table.{name}", f"feature_dims.{field}"
        )
        return self.model.table(name, tensor)

    # --- Networks --------------------------------------------------------------------------------------------------

    def mlp_config(self, key: str, group: str, index: int, aliases: tuple[str, ...] = ()) -> dict[str, Any]:
        """One MLP's members; a list or an object by group gives each group its own."""
        value = None
        for name in (key, *aliases):
            value = self.d.hyper(name, (dict, list), None) if name in self.d.hyperparameters else value
        if isinstance(value, list):
            named = [v for v in value if isinstance(v, dict) and v.get("input") == group]
            value = named[0] if named else value[index] if index < len(value) else None
        elif isinstance(value, dict) and group in value:
            value = value[group]
        if isinstance(value, dict):
            value = value.get("mlp", value.get("attn_mlp", value))
        if not isinstance(value, dict) or "hidden_units" not in value:
            raise ExportError(f"description: hyperparameters.{key}: no hidden_units for {group}")
        for member in value:
            if member not in MLP_MEMBERS:
                raise ExportError(
                    f"description: hyperparameters.{key}.{member} is not known; accepted: {', '.join(MLP_MEMBERS)}"
                )
        if value.get("use_ln"):
            raise ExportError(
                f"description: hyperparameters.{key}.use_ln: LayerNorm is outside the family; train with use_bn or "
                "without normalisation"
            )
        return value

    def layers(self, config: dict[str, Any], key: str, prefix: str, n_in: int, place: str) -> list[dict[str, Any]]:
        units = list(config["hidden_units"])
        act = activation(config.get("activation", "nn.ReLU"), f"{key}.activation")
        batch_norm = bool(config.get("use_bn", False))
        present = {
            int(m[1]) for m in (re.match(rf"{re.escape(prefix)}\.(\d+)\.", n) for n in self.c.checkpoint.tensors) if m
        }
        modules = [m for i in sorted(present) for m in walk(self.c.checkpoint, f"{prefix}.{i}.perceptron")]
        source = Sequential(
            prefix,
            units,
            [act] * len(units),
            f"{key}.hidden_units",
            batch_norm=batch_norm,
            bias=bool(config.get("bias", True)) and not batch_norm,
        )
        return read_sequential(self.reader, modules, source, n_in, place)

    def tower(self, index: int, group: str) -> str:
        """An MLP over the group, before the concat."""
        terms = [term(self.slot(f, False)) for f in self.groups[group]]
        config = self.mlp_config("tower_mlp", group, index, ("towers", "mlp"))
        layers = self.layers(
            config,
            f"tower_mlp ({group})",
            f"towers.{group}.mlp",
            self.model.term_width(terms),
            f"pre{index}",
        )
        return self.model.pre_tower(group, terms, layers)

    def din(self, index: int, group: str, count: int) -> str:
        query = [self.slot(f, True) for f in self.groups[f"{group}.query"]]
        key = [self.slot(f, True) for f in self.groups[f"{group}.sequence"]]
        q, k = self.model.width(query), self.model.width(key)
        if q > k:
            raise ExportError(
                f"description: feature_groups.{group}: the query is {q} wide, the sequence {k}; TorchEasyRec "
                "refuses a wider query, too"
            )
        config = self.mlp_config("attn_mlp", group, index, ("din_towers",))
        prefix = f"din_towers.{index}"
        layers = self.layers(config, f"attn_mlp ({group})", f"{prefix}.mlp.mlp", 4 * k, f"att{index}")
        self.reader.linear(
            f"{prefix}.linear.weight",
            f"{prefix}.linear.bias",
            config["hidden_units"][-1],
            1,
            f"att{index}.out",
            "the attention's score",
        )
        return self.model.attention(
            "att" if count == 1 else f"att.{group}",
            self.sequence_of[self.groups[f"{group}.sequence"][0]],
            query,
            key,
            layers=layers,
            normalise="NORMALISE_SOFTMAX",
            query_width="QUERY_WIDTH_ZERO_PAD" if q < k else "QUERY_WIDTH_EQUAL",
        )

    def head(self, terms: list[dict[str, Any]]) -> None:
        classes = self.d.hyper("num_class", int, 1)
        if classes not in (1, 2):
            raise ExportError(f"description: hyperparameters.num_class: {classes}; accepted: 1, 2")
        n_in, layers = self.model.term_width(terms), []
        if self.d.hyper("final", (dict, type(None)), None) is not None:
            config = self.mlp_config("final", "final", 0)
            layers = self.layers(config, "final", "final_mlp.mlp", n_in, "tower")
            n_in = config["hidden_units"][-1]
        self.reader.linear(
            "output_mlp.weight", "output_mlp.bias", n_in, classes, "head", "num_class"
        )
        self.model.spec["tower"] = {
            "input": terms,
            "layers": layers,
            "head_bias": True,
            "classes": classes,
            **({"positive_class": 1} if classes == 2 else {}),
        }
