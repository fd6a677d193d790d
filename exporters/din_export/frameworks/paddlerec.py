"""PaddleRec, PaddlePaddle/PaddleRec @ 656326a: models/rank/din/net.py.

Weights come from the static graph: in dygraph the tower's layers take the names of the attention's, which are then in
no state_dict, so that such a checkpoint does not hold the model.
"""
from __future__ import annotations

from typing import Any

from ..conversion import Conversion
from ..errors import ExportError
from ..layers import SIGMOID, LayerReader, LayerSource, Style
from ..model import UNLIMITED, term
from ..tensors import reshaped

NAME = "paddlerec"
REPO = "PaddlePaddle/PaddleRec"
ALIASES = ("PaddleRec",)
HARMLESS = {
    "optimizer",
    "use_DataLoader",
    "is_sparse",
    "distributed_embedding",
    "class",
    "learning_rate_base_lr",
    "strategy",
}

PADDLE = Style(transposed=True)
UNITS = [80, 40]
# Embeddings in the order in which net.py makes them: its attribute -> (table, of items?).
EMBEDDINGS = (
    "hist_item_emb_attr",
    "hist_cat_emb_attr",
    "target_item_emb_attr",
    "target_cat_emb_attr",
    "target_item_seq_emb_attr",
    "target_cat_seq_emb_attr",
    "item_b_attr",
)


class PaddleNames:
    """Three spellings: the attributes of net.py, its lists of layers, and the static graph's numbers."""

    def __init__(self, c: Conversion) -> None:
        self.checkpoint = c.checkpoint
        self.numbered = "embedding_0.w_0" in c.checkpoint
        lists = c.checkpoint.names("attention_layer.") and c.checkpoint.names("con_layer.")
        if self.numbered:
            self.attention = [f"linear_{i}" for i in range(3)]
            self.post, self.tower = "linear_3", [f"linear_{i}" for i in range(4, 7)]
        elif lists:
            self.attention = [f"attention_layer.{i}" for i in (0, 2, 4)]
            self.post, self.tower = "con_layer.0", [f"con_layer.{i}" for i in (1, 3, 5)]
        else:
            at = next(
                (
                    p
                    for p in ("att_linear_{}", "attention_linear_{}", "att.linear_{}", "attention.linear_{}")
                    if f"{p.format(0)}.weight" in c.checkpoint
                ),
                None,
            )
            if at is None:
                raise ExportError(
                    "the attention's Linears are missing: PaddleRec's dygraph names the tower's layers linear_0 … 2 "
                    "like them, so a state_dict has only the tower and cannot reproduce its own scores; save the "
                    "static graph's parameters (embedding_0.w_0, linear_0.w_0 …), or rename the attention's to "
                    "att_linear_0 … 2 before training"
                )
            self.attention = [at.format(i) for i in range(3)]
            self.post, self.tower = "linearCon", [f"linear_{i}" for i in range(3)]

    def embedding(self, attribute: str) -> str:
        if self.numbered:
            return f"embedding_{EMBEDDINGS.index(attribute)}.w_0"
        return f"{attribute}.weight"

    def weight(self, layer: str) -> str:
        return f"{layer}.w_0" if self.numbered else f"{layer}.weight"

    def bias(self, layer: str) -> str:
        return f"{layer}.b_0" if self.numbered else f"{layer}.bias"


def convert(c: Conversion) -> None:
    d, model = c.description, c.model
    d.require_padding_behind()
    sizes = {
        "item": (d.hyper("item_count", int, 63001), d.hyper("item_emb_size", int, 64)),
        "cat": (d.hyper("cat_count", int, 801), d.hyper("cat_emb_size", int, 64)),
    }
    if d.hyper("act", str, "sigmoid") != "sigmoid":
        c.warnings.append("hyperparameters.act is not read by PaddleRec's DIN either: its layers are sigmoid")
    names = PaddleNames(c)
    for attribute in EMBEDDINGS[:-1]:
        kind = "item" if "_item_" in attribute else "cat"
        table = attribute.removesuffix("_emb_attr")
        model.table(
            table,
            c.checkpoint.take(
                names.embedding(attribute), sizes[kind], f"table.{table}", f"{kind}_count and {kind}_emb_size"
            ),
        )
    bias = c.checkpoint.take(names.embedding("item_b_attr"), (sizes["item"][0], 1), "table.item_b", "item_count")
    model.table("item_b", reshaped(bias, (sizes["item"][0], 1)))
    ids = {kind: model.identity(kind, rows) for kind, (rows, _) in sizes.items()}
    fields = the_features(c)
    for (scope, kind), name in fields.items():
        model.feature(name, scope, "ID", "hist" if scope == "SEQUENCE" else None, id_map=ids[kind])
    for name in d.features_of("USER") + [n for n in d.features_of("CANDIDATE") if n not in fields.values()]:
        model.feature(name, d.scope(name), "ID", id_map=model.ignored_ids())
    c.sequence("hist", UNLIMITED, "KEEP_LAST", fixed=False)
    item, cat = fields["CANDIDATE", "item"], fields["CANDIDATE", "cat"]
    query = [model.embed(item, "target_item_seq"), model.embed(cat, "target_cat_seq")]
    key = [model.embed(fields["SEQUENCE", "item"], "hist_item"), model.embed(fields["SEQUENCE", "cat"], "hist_cat")]
    target = [model.embed(item, "target_item"), model.embed(cat, "target_cat")]
    build(c, names, query, key, target, item)


def the_features(c: Conversion) -> dict[tuple[str, str], str]:
    """(scope, item or cat) -> the feature's name; those of net.py unless feature_scopes has others."""
    found = {}
    for scope, usual in (("CANDIDATE", ("target_item", "target_cat")), ("SEQUENCE", ("hist_item_seq", "hist_cat_seq"))):
        names = [
            n for n in c.description.features_of(scope) if not (scope == "CANDIDATE" and n.endswith("_seq"))
        ] or list(usual)
        cats = [n for n in names if "cat" in n]
        items = [n for n in names if n not in cats]
        if len(items) != 1 or len(cats) != 1:
            raise ExportError(
                f"description: feature_scopes: {', '.join(names)} are {scope.lower()}; expected one of items and one "
                "whose name has 'cat'"
            )
        found[scope, "item"], found[scope, "cat"] = items[0], cats[0]
    return found


def build(c: Conversion, names: PaddleNames, query: list[str], key: list[str], target: list[str], item: str) -> None:
    model, reader = c.model, LayerReader(c.checkpoint, c.model, PADDLE)
    width = model.width(key)

    def stack(layers: list[str], n_in: int, place: str, out: str, why: str) -> list[dict[str, Any]]:
        spec = []
        for i, layer in enumerate(layers[:-1]):
            spec.append(
                reader.layer(
                    LayerSource(names.weight(layer), names.bias(layer), units=units[i]),
                    n_in,
                    SIGMOID,
                    f"{place}.l{i}",
                    why,
                )
            )
            n_in = units[i]
        reader.linear(names.weight(layers[-1]), names.bias(layers[-1]), n_in, 1, out, why)
        return spec

    units = c.description.units("att_units", UNITS)[:2]
    layers = stack(names.attention, 4 * width, "att0", "att0.out", "net.py's 80-40-1")
    reader.linear(names.weight(names.post), names.bias(names.post), width, width, "att0.post", "linearCon")
    # Their input starts with the key. The -1e9 of the mask is added before the scale, which changes nothing.
    attention = model.attention(
        "att",
        "hist",
        query,
        key,
        layers=layers,
        input=["K", "Q", "K_MINUS_Q", "Q_TIMES_K"],
        scale="SCALE_INVERSE_SQRT_WIDTH",
        normalise="NORMALISE_SOFTMAX",
        post={"units": width, "bias": True},
    )
    units = c.description.units("mlp_units", UNITS)[:2]
    terms = [term(v) for v in [attention, *target]]
    layers = stack(names.tower, model.term_width(terms), "tower", "head", "net.py's 80-40-1")
    model.spec["tower"] = {
        "input": terms,
        "layers": layers,
        "head_bias": True,
        "classes": 1,
        "id_biases": [{"feature": item, "table": "item_b"}],
    }
