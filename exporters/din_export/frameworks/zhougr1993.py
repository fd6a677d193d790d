"""The authors' own code (TensorFlow 1), zhougr1993/DeepInterestNetwork @ 9765f96: din/model.py and din/model_dice.py.

The model is score_i; the repository's test path uses other variables (hist_bn), which were never trained.
"""
from __future__ import annotations

from typing import Any

from ..checkpoint import Checkpoint
from ..conversion import Conversion, check_integers
from ..errors import ExportError
from ..layers import KERAS_BN_EPS, SIGMOID, TENSORFLOW, Activation, LayerReader, LayerSource, dice
from ..model import UNLIMITED, int64, part, term
from ..tensors import reshaped

NAME = "zhougr1993"
REPO = "zhougr1993/DeepInterestNetwork"
ALIASES = ("DeepInterestNetwork", "DeepInterestNetwork (original authors, TF1)", "din")
HARMLESS = {"note", "predict_batch_size", "predict_ads_num", "user_count"}

DICE = dice("RUNNING", KERAS_BN_EPS, slope=True)


def convert(c: Conversion) -> None:
    d, model = c.description, c.model
    d.require_padding_behind()
    hidden = d.hyper("hidden_units", int, 128)
    item_dim, cate_dim = d.hyper("item_emb_dim", int, hidden // 2), d.hyper("cate_emb_dim", int, hidden // 2)
    if item_dim + cate_dim != hidden:
        raise ExportError(
            f"description: hyperparameters: item_emb_dim {item_dim} + cate_emb_dim {cate_dim} is not hidden_units "
            f"{hidden}"
        )
    item, history = the_feature(c, "CANDIDATE", "i"), the_feature(c, "SEQUENCE", "hist_i")
    tables(c, item_dim, cate_dim)
    features(c, item, history)
    keys = [model.embed(history, "item"), model.embed(f"{history}_cate", "cate")]
    query = [model.embed(item, "item"), model.embed(f"{item}_cate", "cate")]
    # Without a limit in the framework: as long as the longest history of a batch.
    c.sequence("hist", UNLIMITED, "KEEP_LAST", fixed=False)
    reader = LayerReader(c.checkpoint, model, TENSORFLOW)
    layers = dense_stack(
        reader, "f{}_att", score_units(c, "att_units"), [SIGMOID], 4 * hidden, "att0", "att0.out", "att_units"
    )
    post = {
        "bn": reader.batch_norm("batch_normalization", hidden, "att0.post.bn", "the pooled vector"),
        "units": hidden,
        "bias": True,
    }
    reader.linear("hist_fcn/kernel", "hist_fcn/bias", hidden, hidden, "att0.post", "hidden_units")
    attention = model.attention(
        "att",
        "hist",
        query,
        keys,
        layers=layers,
        scale="SCALE_INVERSE_SQRT_WIDTH",
        normalise="NORMALISE_SOFTMAX",
        post=post,
    )
    terms = [
        term(attention),
        *[term(q) for q in query],
        term(part(attention, 0, item_dim), query[0]),
        term(part(attention, item_dim, hidden), query[1]),
    ]
    units = score_units(c, "mlp_units")
    acts = [DICE if dice_variable(c.checkpoint, "alpha", i + 1) in c.checkpoint else SIGMOID for i in range(len(units))]
    network = {"input": terms, "in_bn": reader.batch_norm("b1", 3 * hidden, "tower.in_bn", "the tower's input")}
    network["layers"] = dense_stack(reader, "f{}", units, acts, 3 * hidden, "tower", "head", "mlp_units")
    model.spec["tower"] = {
        **network,
        "head_bias": True,
        "classes": 1,
        "id_biases": [{"feature": item, "table": "item_b"}],
    }
    ignore(c)


def the_feature(c: Conversion, scope: str, default: str) -> str:
    """The one feature of the scope; the network has no place for more."""
    found = c.description.features_of(scope) or [default]
    if len(found) != 1:
        raise ExportError(
            f"description: feature_scopes: {', '.join(found)} are all {scope.lower()}, but the network reads one "
            "item id there (its category comes from cate_list)"
        )
    return found[0]


def score_units(c: Conversion, key: str) -> list[int]:
    """Hidden layers; the last entry is the score's one unit."""
    units = c.description.units(key, [80, 40, 1])
    if units[-1:] != [1] or len(units) < 2:
        raise ExportError(f"description: hyperparameters.{key}: {units} must end in 1, the score, after a hidden layer")
    return units[:-1]


def tables(c: Conversion, item_dim: int, cate_dim: int) -> None:
    items, categories = (c.checkpoint.shape(n)[0] if n in c.checkpoint else 0 for n in ("item_emb_w", "cate_emb_w"))
    c.model.table(
        "item", c.checkpoint.take("item_emb_w", (items, item_dim), "table.item", "item_emb_dim (hidden_units / 2)")
    )
    c.model.table(
        "cate", c.checkpoint.take("cate_emb_w", (categories, cate_dim), "table.cate", "cate_emb_dim (hidden_units / 2)")
    )
    bias = c.checkpoint.take("item_b", (items,), "table.item_b", "the rows of item_emb_w")
    c.model.table("item_b", reshaped(bias, (items, 1)))
    values = c.column("cate_list", "the category of an item is a constant of the graph")
    if len(values) != items:
        raise ExportError(f"side table cate_list: {len(values)} entries, expected {items}, the rows of item_emb_w")
    c.model.spec["side_tables"].append(
        {
            "name": "cate_list",
            "key_type": "INT64",
            "rows": items,
            "kind": "ID",
            "value_type": "INT64",
            "missing_key": "MISSING_KEY_ERROR",
        }
    )
    c.model.put("side.cate_list.values", int64(check_integers(values, categories, "side table cate_list")))


def features(c: Conversion, item: str, history: str) -> None:
    model = c.model
    ids, categories = (model.identity(t, model.named("tables", t)["rows"]) for t in ("item", "cate"))
    for name in c.description.features_of("USER"):
        model.feature(name, "USER", "ID", id_map=model.ignored_ids())
    for name, scope, sequence in ((item, "CANDIDATE", None), (history, "SEQUENCE", "hist")):
        model.feature(name, scope, "ID", sequence, id_map=ids)
        model.feature(
            f"{name}_cate", scope, "ID", sequence, id_map=categories, side={"side_table": "cate_list", "key": name}
        )


def dice_variable(checkpoint: Checkpoint, name: str, i: int) -> str:
    """alphadice_1 at the top, as their Dice makes it, or in the scope of its BatchNorm."""
    scoped = f"dice_{i}/{name}dice_{i}"
    return scoped if scoped in checkpoint else f"{name}dice_{i}"


def dense_stack(
    reader: LayerReader, name: str, units: list[int], acts: list[Activation], n_in: int, place: str, out: str, why: str
) -> list[dict[str, Any]]:
    """Layers name.format(1), name.format(2), … and a last one of one unit."""
    layers = []
    for i, n_out in enumerate(units):
        scope, act = name.format(i + 1), acts[min(i, len(acts) - 1)]
        source = LayerSource(f"{scope}/kernel", f"{scope}/bias", units=n_out)
        layers.append(reader.layer(source, n_in, act, f"{place}.l{i}", why))
        if act.kind == "DICE":
            at = f"dice_{i + 1}"
            reader.alpha(dice_variable(reader.checkpoint, "alpha", i + 1), n_out, f"{place}.l{i}.act.alpha", why)
            reader.alpha(dice_variable(reader.checkpoint, "beta", i + 1), n_out, f"{place}.l{i}.act.slope", why)
            reader.statistics(at, n_out, f"{place}.l{i}.act", why, False)
        n_in = n_out
    scope = name.format(len(units) + 1)
    reader.linear(f"{scope}/kernel", f"{scope}/bias", n_in, 1, out, why)
    return layers


def ignore(c: Conversion) -> None:
    c.checkpoint.ignore_matching(r"^user_emb_w$", "the network does not read the user")
    c.checkpoint.ignore_matching(r"^hist_bn/", "of the repository's test path, which is not the trained model")
    c.checkpoint.ignore_matching(r"^(global_step|global_epoch_step)$", "a counter of training")
