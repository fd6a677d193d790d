#!/usr/bin/env python3
"""Turns the golden cases of other frameworks into complete snapshots, by rules written by hand for each case.

    make_golden.py SOURCE DESTINATION [--check]

SOURCE has one directory per case with config.json, weights.safetensors (the framework's own state), inputs.json and
expected.json (the framework's own scores). Each becomes DESTINATION/<case>/1/ with model.json, weights.safetensors,
golden.jsonl and manifest.json. --check also evaluates every snapshot in plain Python and fails when a score is
further than 1e-6 from the framework's. Needs nothing but Python's standard library.
"""
import argparse
import array
import hashlib
import json
import math
import pathlib
import struct
import sys

TOLERANCE = 1e-5  # of the golden cases
CHECK_LIMIT = 1e-6  # of --check, which computes in fp64
CHUNK = 8 << 20
DATA_TYPES = {"F32": "f", "I64": "q"}  # safetensors' name -> the array module's


# ---------------------------------------------------------------------------------------------------------------------
# Tensors


class Tensor:
    """Row-major numbers in an array.array."""

    def __init__(self, dtype, shape, values):
        self.dtype, self.shape = dtype, list(shape)
        self.values = array.array(DATA_TYPES[dtype], values)
        assert len(self.values) == math.prod(self.shape), (shape, len(self.values))

    def reshape(self, *shape):
        return Tensor(self.dtype, shape, self.values)

    def transposed(self):
        rows, columns = self.shape
        return Tensor(self.dtype, [columns, rows],
                      [self.values[r * columns + c] for c in range(columns) for r in range(rows)])

    def row(self, r):
        width = self.shape[1]
        return self.values[r * width:(r + 1) * width].tolist()


def read_safetensors(path):
    blob = path.read_bytes()
    (header_size,) = struct.unpack_from("<Q", blob)
    header = json.loads(blob[8:8 + header_size])
    out = {}
    for name, info in header.items():
        if name == "__metadata__" or info["dtype"] not in DATA_TYPES:
            continue
        begin, end = (8 + header_size + offset for offset in info["data_offsets"])
        values = array.array(DATA_TYPES[info["dtype"]])
        values.frombytes(blob[begin:end])
        out[name] = Tensor(info["dtype"], info["shape"], values)
    return out


def write_safetensors(path, tensors):
    # Wide elements first, so that every tensor is aligned to its element.
    names = sorted(tensors, key=lambda name: (-tensors[name].values.itemsize, name))
    header, offset = {}, 0
    for name in names:
        size = len(tensors[name].values) * tensors[name].values.itemsize
        header[name] = {"dtype": tensors[name].dtype, "shape": tensors[name].shape,
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensors[n].values.tobytes() for n in names))


# ---------------------------------------------------------------------------------------------------------------------
# Pieces of a ModelSpec


def identity(name, size):
    return {"name": name, "id_type": "INT64", "identity": {"size": size}, "out_of_vocabulary": "ERROR"}


def table(name, rows, dim, **more):
    return {"name": name, "rows": rows, "dim": dim, **more}


def id_feature(name, scope, id_map, **more):
    return {"name": name, "scope": scope, "kind": "ID", "id_map": id_map, **more}


def dense_feature(name, scope, width, **more):
    return {"name": name, "scope": scope, "kind": "DENSE", "width": width, **more}


def in_sequence(name, id_map, **more):
    return id_feature(name, "SEQUENCE", id_map, sequence="hist", **more)


def side(side_table, key):
    return {"side": {"side_table": side_table, "key": key}}


PAD_ZERO = {"padding": {"id": 0}}


def embed(feature, table_name, name=None):
    return {"name": name or feature, "embed": {"feature": feature, "table": table_name}}


def layer(units, activation, bias=True, bn=None):
    out = {"units": units, "bias": bias, "activation": activation}
    return {**out, "bn": bn} if bn else out


def sequence(max_length, keep, **more):
    return {"name": "hist", "max_length": max_length, "keep": keep, "invalid": "DROP", **more}


def attention(query, key, layers, name="att", **more):
    return {"name": name, "sequence": "hist", "query": query, "key": key, "query_width": "QUERY_WIDTH_EQUAL",
            "input": ["Q", "K", "Q_MINUS_K", "Q_TIMES_K"], "layers": layers, "out_bias": True,
            "out_activation": "NONE", "scale": "SCALE_NONE", "normalise": "NORMALISE_NONE", "empty": "EMPTY_ZERO",
            **more}


def part(name, begin=0, end=0):
    return {"name": name, **({"begin": begin, "end": end} if end else {})}


def term(a, b=None):
    a = part(a) if isinstance(a, str) else a
    b = part(b) if isinstance(b, str) else b
    return {"a": a, "b": b} if b else {"a": a}


def batch_norm(eps):
    return {"eps": eps, "affine": True}


RELU = {"kind": "RELU"}
SIGMOID = {"kind": "SIGMOID"}


def dice(**more):
    return {"kind": "DICE", "dice": {"alpha": "ALPHA_TENSOR", **more}}


# ---------------------------------------------------------------------------------------------------------------------
# Names and layouts of the frameworks' layers


def torch_linear(raw, name, to, tensors, bias=True):
    tensors[to + ".w"] = raw[name + ".weight"]
    if bias:
        tensors[to + ".b"] = raw[name + ".bias"]


def torch_batch_norm(raw, name, to, tensors, affine=True):
    tensors[to + ".mean"] = raw[name + ".running_mean"]
    tensors[to + ".var"] = raw[name + ".running_var"]
    if affine:
        tensors[to + ".gamma"] = raw[name + ".weight"]
        tensors[to + ".beta"] = raw[name + ".bias"]


def tf_linear(raw, kernel, bias, to, tensors):
    tensors[to + ".w"] = raw[kernel].transposed()  # TensorFlow multiplies from the left: [in, out]
    if bias:
        tensors[to + ".b"] = raw[bias]


def tf_batch_norm(raw, name, to, tensors, affine=True):
    tensors[to + ".mean"] = raw[name + "/moving_mean"]
    tensors[to + ".var"] = raw[name + "/moving_variance"]
    if affine:
        tensors[to + ".gamma"] = raw[name + "/gamma"]
        tensors[to + ".beta"] = raw[name + "/beta"]


# ---------------------------------------------------------------------------------------------------------------------
# The cases. Each takes the raw tensors and the side tables of inputs.json, and gives a ModelSpec and its tensors.


def zhougr1993(raw, sides):
    """The authors' code: category by a constant array, softmax over 1/sqrt(D), BN + Dense on the pooled vector."""
    tensors = {"table.item": raw["item_emb_w"], "table.cate": raw["cate_emb_w"],
               "table.item_b": raw["item_b"].reshape(70, 1),
               "side.cate_list.values": Tensor("I64", [70], sides["cate_list"])}
    for i in range(2):
        tf_linear(raw, f"f{i + 1}_att/kernel", f"f{i + 1}_att/bias", f"att0.l{i}", tensors)
        tf_linear(raw, f"f{i + 1}/kernel", f"f{i + 1}/bias", f"tower.l{i}", tensors)
    tf_linear(raw, "f3_att/kernel", "f3_att/bias", "att0.out", tensors)
    tf_batch_norm(raw, "batch_normalization", "att0.post.bn", tensors)
    tf_linear(raw, "hist_fcn/kernel", "hist_fcn/bias", "att0.post", tensors)
    tf_batch_norm(raw, "b1", "tower.in_bn", tensors)
    tf_linear(raw, "f3/kernel", "f3/bias", "head", tensors)
    layers = [layer(20, SIGMOID), layer(10, SIGMOID)]
    return {
        "id_maps": [identity("item", 70), identity("cate", 9)],
        "tables": [table("item", 70, 12), table("cate", 9, 12), table("item_b", 70, 1)],
        "side_tables": [{"name": "cate_list", "key_type": "INT64", "rows": 70, "kind": "ID", "value_type": "INT64",
                         "missing_key": "MISSING_KEY_ERROR"}],
        "features": [id_feature("i", "CANDIDATE", "item"),
                     id_feature("cate", "CANDIDATE", "cate", **side("cate_list", "i")),
                     in_sequence("hist_i", "item"),
                     in_sequence("hist_cate", "cate", **side("cate_list", "hist_i"))],
        "sequences": [sequence(100, "KEEP_LAST")],
        "slots": [embed("i", "item"), embed("cate", "cate"), embed("hist_i", "item"), embed("hist_cate", "cate")],
        "attentions": [attention(["i", "cate"], ["hist_i", "hist_cate"], layers, scale="SCALE_INVERSE_SQRT_WIDTH",
                                 normalise="NORMALISE_SOFTMAX",
                                 post={"bn": batch_norm(1e-3), "units": 24, "bias": True})],
        "tower": {"input": [term("att"), term("i"), term("cate"), term(part("att", 0, 12), "i"),
                            term(part("att", 12, 24), "cate")],
                  "in_bn": batch_norm(1e-3), "layers": layers, "head_bias": True, "classes": 1,
                  "id_biases": [{"feature": "i", "table": "item_b"}]},
    }, tensors


def deepctr_torch(raw, _):
    """Dice with an affine BN inside, an id list pooled by its non-zero ids, dense features at the end."""
    tensors = {"bias.global": raw["out.bias"]}
    for name in ("user", "gender", "item_id", "cate_id", "tags"):
        tensors["table." + name] = raw[f"embedding_dict.{name}.weight"]
    for i, units in enumerate((16, 8)):
        torch_linear(raw, f"attention.local_att.dnn.linears.{i}", f"att0.l{i}", tensors)
        unit = f"attention.local_att.dnn.activation_layers.{i}"
        tensors[f"att0.l{i}.act.alpha"] = raw[unit + ".alpha"].reshape(units)
        torch_batch_norm(raw, unit + ".bn", f"att0.l{i}.act", tensors)
        torch_linear(raw, f"dnn.linears.{i}", f"tower.l{i}", tensors)
    torch_linear(raw, "attention.local_att.dense", "att0.out", tensors)
    torch_linear(raw, "dnn_linear", "head", tensors, bias=False)
    unit = dice(statistics="RUNNING", eps=1e-8, affine=True)
    return {
        "id_maps": [identity("user", 40), identity("gender", 3), identity("item_id", 60), identity("cate_id", 12),
                    identity("tags", 20)],
        "tables": [table("user", 40, 8), table("gender", 3, 4), table("item_id", 60, 8), table("cate_id", 12, 4),
                   table("tags", 20, 4)],
        "features": [id_feature("user", "USER", "user"), id_feature("gender", "USER", "gender"),
                     id_feature("item_id", "CANDIDATE", "item_id"), id_feature("cate_id", "CANDIDATE", "cate_id"),
                     dense_feature("score", "USER", 2), dense_feature("price", "CANDIDATE", 1),
                     in_sequence("hist_item_id", "item_id"), in_sequence("hist_cate_id", "cate_id"),
                     {"name": "tags", "scope": "USER", "kind": "ID_LIST", "id_map": "tags", **PAD_ZERO,
                      "max_length": 5, "keep": "KEEP_LAST"}],
        "sequences": [sequence(10, "KEEP_LAST")],
        "slots": [embed("user", "user"), embed("gender", "gender"), embed("item_id", "item_id"),
                  embed("cate_id", "cate_id"), embed("hist_item_id", "item_id"), embed("hist_cate_id", "cate_id"),
                  {"name": "tags", "pool": {"feature": "tags", "table": "tags", "kind": "MEAN", "skip_padding": True,
                                            "divisor_epsilon": 1e-8}},
                  {"name": "score", "dense": {"feature": "score"}}, {"name": "price", "dense": {"feature": "price"}}],
        "attentions": [attention(["item_id", "cate_id"], ["hist_item_id", "hist_cate_id"],
                                 [layer(16, unit), layer(8, unit)])],
        "tower": {"input": [term(name) for name in ("user", "gender", "item_id", "cate_id", "tags", "att", "score",
                                                    "price")],
                  "layers": [layer(32, RELU), layer(16, RELU)], "classes": 1, "global_bias": True},
    }, tensors


def deepctr_tf(raw, _):
    """A position counts only if no field of it is 0; BN in the tower with Keras' eps."""
    att = "attention_sequence_pooling_layer/local_activation_unit"
    tensors = {"table.user": raw["sparse_emb_user/embeddings"], "table.item_id": raw["sparse_emb_item_id/embeddings"],
               "table.cate_id": raw["sparse_emb_cate_id/embeddings"],
               "bias.global": raw["prediction_layer/global_bias"]}
    for i, suffix in enumerate(("", "_1")):
        tf_linear(raw, f"{att}/dnn/kernel{i}", f"{att}/dnn/bias{i}", f"att0.l{i}", tensors)
        tensors[f"att0.l{i}.act.alpha"] = raw[f"{att}/dnn/dice{suffix}/dice_alpha"]
        tf_batch_norm(raw, f"{att}/dnn/dice{suffix}/batch_normalization", f"att0.l{i}.act", tensors, affine=False)
        tf_linear(raw, f"dnn_1/kernel{i}", f"dnn_1/bias{i}", f"tower.l{i}", tensors)
        tf_batch_norm(raw, f"dnn_1/batch_normalization_{i + 2}", f"tower.l{i}.bn", tensors)
    tf_linear(raw, f"{att}/kernel", f"{att}/bias", "att0.out", tensors)
    tf_linear(raw, "dense/kernel", None, "head", tensors)
    unit = dice(statistics="RUNNING", eps=1e-9)
    return {
        "id_maps": [identity("user", 30), identity("item_id", 60), identity("cate_id", 12)],
        "tables": [table("user", 30, 6), table("item_id", 60, 8), table("cate_id", 12, 4)],
        "features": [id_feature("user", "USER", "user"), id_feature("item_id", "CANDIDATE", "item_id"),
                     id_feature("cate_id", "CANDIDATE", "cate_id"), dense_feature("price", "CANDIDATE", 1),
                     in_sequence("hist_item_id", "item_id", **PAD_ZERO),
                     in_sequence("hist_cate_id", "cate_id", **PAD_ZERO)],
        "sequences": [sequence(10, "KEEP_LAST", valid_when_not_padding=["hist_item_id", "hist_cate_id"])],
        "slots": [embed("user", "user"), embed("item_id", "item_id"), embed("cate_id", "cate_id"),
                  embed("hist_item_id", "item_id"), embed("hist_cate_id", "cate_id"),
                  {"name": "price", "dense": {"feature": "price"}}],
        "attentions": [attention(["item_id", "cate_id"], ["hist_item_id", "hist_cate_id"],
                                 [layer(16, unit), layer(8, unit)])],
        "tower": {"input": [term(name) for name in ("user", "item_id", "cate_id", "att", "price")],
                  "layers": [layer(20, RELU, bn=batch_norm(1e-3)), layer(10, RELU, bn=batch_norm(1e-3))],
                  "classes": 1, "global_bias": True},
    }, tensors


def fuxictr(raw, _):
    """The mask looks at the first field only; the pooled vector is split and put where the history fields stand."""
    tensors = {}
    for name in ("user_id", "item_id", "cate_id"):
        tensors["table." + name] = raw[f"embedding_layer.embedding_layers.{name}.weight"]
    tensors["table.age"] = raw["embedding_layer.embedding_layers.age.weight"].transposed()
    unit = "attention_layers.0.attention_layer.mlp"
    torch_linear(raw, unit + ".0", "att0.l0", tensors)
    tensors["att0.l0.act.alpha"] = raw[unit + ".1.alpha"]
    torch_batch_norm(raw, unit + ".1.bn", "att0.l0.act", tensors, affine=False)
    torch_linear(raw, unit + ".2", "att0.out", tensors)
    torch_linear(raw, "dnn.mlp.0", "tower.l0", tensors)
    torch_linear(raw, "dnn.mlp.2", "tower.l1", tensors)
    torch_linear(raw, "dnn.mlp.4", "head", tensors)
    return {
        "id_maps": [identity("user_id", 40), identity("item_id", 60), identity("cate_id", 12)],
        "tables": [table("user_id", 40, 10), table("item_id", 60, 10), table("cate_id", 12, 10), table("age", 1, 10)],
        "features": [id_feature("user_id", "USER", "user_id"), id_feature("item_id", "CANDIDATE", "item_id"),
                     id_feature("cate_id", "CANDIDATE", "cate_id"),
                     in_sequence("click_history", "item_id", **PAD_ZERO),
                     in_sequence("cate_history", "cate_id", **PAD_ZERO), dense_feature("age", "USER", 1)],
        "sequences": [sequence(8, "KEEP_FIRST", valid_when_not_padding=["click_history"])],
        "slots": [embed("user_id", "user_id"), embed("item_id", "item_id"), embed("cate_id", "cate_id"),
                  embed("click_history", "item_id"), embed("cate_history", "cate_id"),
                  {"name": "age", "scaled": {"value": "age", "table": "age"}}],
        "attentions": [attention(["item_id", "cate_id"], ["click_history", "cate_history"],
                                 [layer(24, dice(statistics="RUNNING", eps=1e-9))])],
        "tower": {"input": [term("user_id"), term("item_id"), term("cate_id"), term(part("att", 0, 10)),
                            term(part("att", 10, 20)), term("age")],
                  "layers": [layer(32, RELU), layer(16, RELU)], "head_bias": True, "classes": 1},
    }, tensors


def recbole(raw, sides):
    """An item is what side tables say of it; token fields are windows on one tensor; Dice without statistics."""
    tags = [[t for t in row if t != 0] for row in sides["tags"]]
    offsets = [0]
    for row in tags:
        offsets.append(offsets[-1] + len(row))
    tensors = {"item_tokens": raw["embedding_layer.token_embedding_table.item.embedding.weight"],
               "table.tags": raw["embedding_layer.token_seq_embedding_table.item.0.weight"],
               "table.price": raw["embedding_layer.float_embedding_table.item.embedding.weight"],
               "side.cate.values": Tensor("I64", [50], sides["cate"]),
               "side.tags.values": Tensor("I64", [offsets[-1]], [t for row in tags for t in row]),
               "side.tags.offsets": Tensor("I64", [51], offsets),
               "side.price.values": Tensor("F32", [50, 1], [value for value, _ in sides["price"]]),
               "side.price_bucket.values": Tensor("I64", [50], [int(bucket) for _, bucket in sides["price"]])}
    for i in range(2):
        torch_linear(raw, f"attention.att_mlp_layers.mlp_layers.{3 * i + 1}", f"att0.l{i}", tensors)
        torch_linear(raw, f"dnn_mlp_layers.mlp_layers.{4 * i + 1}", f"tower.l{i}", tensors)
        torch_batch_norm(raw, f"dnn_mlp_layers.mlp_layers.{4 * i + 2}", f"tower.l{i}.bn", tensors)
    torch_linear(raw, "attention.dense", "att0.out", tensors)
    torch_linear(raw, "dnn_predict_layers", "head", tensors)

    def side_table(name, kind, **more):
        return {"name": name, "key_type": "INT64", "rows": 50, "kind": kind, "missing_key": "MISSING_KEY_ERROR", **more}

    def item(key, suffix, **where):  # one item's features, of the candidate or of a behaviour
        return [{"name": key, "kind": "ID", "id_map": "item_id", **where},
                {"name": "cate" + suffix, "kind": "ID", "id_map": "cate", **where, **side("cate", key)},
                {"name": "tags" + suffix, "kind": "ID_LIST", "id_map": "tags", **PAD_ZERO, **where,
                 **side("tags", key)},
                {"name": "price" + suffix, "kind": "DENSE", "width": 1, **where, **side("price", key)},
                {"name": "price_bucket" + suffix, "kind": "ID", "id_map": "price_bucket", **where,
                 **side("price_bucket", key)}]

    def slots(key, suffix):
        return [embed(key, "item_id"), embed("cate" + suffix, "cate"),
                {"name": "tags" + suffix, "pool": {"feature": "tags" + suffix, "table": "tags", "kind": "MEAN",
                                                   "skip_padding": True, "divisor_epsilon": 1e-8}},
                {"name": "price" + suffix, "scaled": {"value": "price" + suffix, "feature": "price_bucket" + suffix,
                                                      "table": "price"}}]

    query = ["item_id", "cate", "tags", "price"]
    key = ["item_id_list", "cate_list", "tags_list", "price_list"]
    unit = {"kind": "DICE", "dice": {"statistics": "IDENTITY", "alpha": "ALPHA_CONSTANT", "alpha_value": 0}}
    return {
        "id_maps": [identity("item_id", 50), identity("cate", 9), identity("tags", 14), identity("price_bucket", 2)],
        "tables": [table("item_id", 50, 6, tensor="item_tokens"),
                   table("cate", 9, 6, tensor="item_tokens", row_offset=50), table("tags", 14, 6),
                   table("price", 2, 6)],
        "side_tables": [side_table("cate", "ID", value_type="INT64"), side_table("tags", "ID_LIST", value_type="INT64"),
                        side_table("price", "DENSE", width=1), side_table("price_bucket", "ID", value_type="INT64")],
        "features": item("item_id", "", scope="CANDIDATE") +
                    item("item_id_list", "_list", scope="SEQUENCE", sequence="hist"),
        "sequences": [sequence(8, "KEEP_LAST")],
        "slots": slots("item_id", "") + slots("item_id_list", "_list"),
        "attentions": [attention(query, key, [layer(24, SIGMOID), layer(16, SIGMOID)],
                                 scale="SCALE_INVERSE_SQRT_WIDTH")],
        "tower": {"input": [term("att")] + [term(name) for name in query] +
                           [term(part("att", 6 * i, 6 * i + 6), name) for i, name in enumerate(query)],
                  "layers": [layer(24, unit, bn=batch_norm(1e-5)), layer(16, unit, bn=batch_norm(1e-5))],
                  "head_bias": True, "classes": 1},
    }, tensors


def rechub(raw, _):
    """One attention per history field, no mask: padding takes part. Dice normalises each row over its own units."""
    tensors = {}
    for name in ("target_item_id", "target_cate_id", "user_id"):
        tensors["table." + name] = raw[f"embedding.embed_dict.{name}.weight"]
    networks = [("attention_layers.0.attention.mlp", "att0", "att0.out"),
                ("attention_layers.1.attention.mlp", "att1", "att1.out"), ("mlp.mlp", "tower", "head")]
    for name, to, out in networks:
        for i in range(2):
            torch_linear(raw, f"{name}.{4 * i}", f"{to}.l{i}", tensors)
            torch_batch_norm(raw, f"{name}.{4 * i + 1}", f"{to}.l{i}.bn", tensors)
            tensors[f"{to}.l{i}.act.alpha"] = raw[f"{name}.{4 * i + 2}.alpha"]
        torch_linear(raw, f"{name}.8", out, tensors)

    def layers(*units):
        return [layer(u, dice(statistics="PER_ROW", eps=1e-3), bn=batch_norm(1e-5)) for u in units]

    targets = ["target_item_id", "target_cate_id", "user_id"]
    return {
        "id_maps": [identity("item_id", 60), identity("cate_id", 12), identity("user_id", 40)],
        "tables": [table("target_item_id", 60, 8), table("target_cate_id", 12, 8), table("user_id", 40, 8)],
        "features": [id_feature("target_item_id", "CANDIDATE", "item_id"),
                     id_feature("target_cate_id", "CANDIDATE", "cate_id"), id_feature("user_id", "USER", "user_id"),
                     in_sequence("hist_item_id", "item_id", **PAD_ZERO),
                     in_sequence("hist_cate_id", "cate_id", **PAD_ZERO)],
        "sequences": [sequence(10, "KEEP_FIRST", invalid="PARTICIPATE", padded_length=10)],
        "slots": [embed(name, name) for name in targets] +
                 [embed("hist_item_id", "target_item_id"), embed("hist_cate_id", "target_cate_id")],
        "attentions": [attention(["target_item_id"], ["hist_item_id"], layers(16, 8), name="att_item"),
                       attention(["target_cate_id"], ["hist_cate_id"], layers(16, 8), name="att_cate")],
        "tower": {"input": [term(name) for name in ["att_item", "att_cate"] + targets + targets],
                  "layers": layers(32, 16), "head_bias": True, "classes": 1},
    }, tensors


def tzrec(raw, _):
    """Three tables for one item, a query narrower than the key, a network before the concat, softmax."""
    group = "model.embedding_group."
    deep = group + "emb_impls.__BASE__.ebc.embedding_bags."
    dict8, dict4 = (group + f"seq_emb_impls.__BASE__.ec_dict.{dim}.embeddings." for dim in (8, 4))
    tensors = {"table.user_id": raw[deep + "user_id_emb.weight"], "table.item": raw[deep + "item_emb.weight"],
               "table.cate": raw[deep + "cate_emb.weight"], "table.query_item": raw[dict8 + "item_emb.weight"],
               "table.query_cate": raw[dict8 + "cate_emb.weight"],
               "table.seq_item": raw[dict8 + "seq__item_emb.weight"],
               "table.seq_cate": raw[dict8 + "seq__cate_emb.weight"],
               "table.seq_act": raw[dict4 + "seq__act_emb.weight"]}
    for i in range(2):
        torch_linear(raw, f"model.towers.deep.mlp.{i}.perceptron.0", f"pre0.l{i}", tensors)
        torch_linear(raw, f"model.din_towers.0.mlp.mlp.{i}.perceptron.0", f"att0.l{i}", tensors)
    torch_linear(raw, "model.din_towers.0.linear", "att0.out", tensors)
    torch_linear(raw, "model.final_mlp.mlp.0.perceptron.0", "tower.l0", tensors)
    torch_linear(raw, "model.output_mlp", "head", tensors)
    return {
        "id_maps": [identity("user_id", 40), identity("item", 60), identity("cate", 12), identity("act", 5)],
        "tables": [table("user_id", 40, 8), table("item", 60, 8), table("cate", 12, 8), table("query_item", 60, 8),
                   table("query_cate", 12, 8), table("seq_item", 60, 8), table("seq_cate", 12, 8),
                   table("seq_act", 5, 4)],
        "features": [id_feature("user_id", "USER", "user_id"), id_feature("item", "CANDIDATE", "item"),
                     id_feature("cate", "CANDIDATE", "cate"), dense_feature("ctx", "USER", 3),
                     in_sequence("seq__item", "item"), in_sequence("seq__cate", "cate"),
                     in_sequence("seq__act", "act")],
        "sequences": [sequence(100, "KEEP_FIRST")],
        "slots": [embed("user_id", "user_id"), embed("item", "item"), embed("cate", "cate"),
                  {"name": "ctx", "dense": {"feature": "ctx"}}, embed("item", "query_item", "query_item"),
                  embed("cate", "query_cate", "query_cate"), embed("seq__item", "seq_item"),
                  embed("seq__cate", "seq_cate"), embed("seq__act", "seq_act")],
        "attentions": [attention(["query_item", "query_cate"], ["seq__item", "seq__cate", "seq__act"],
                                 [layer(24, RELU), layer(8, RELU)], query_width="QUERY_WIDTH_ZERO_PAD",
                                 normalise="NORMALISE_SOFTMAX")],
        "pre_towers": [{"name": "deep", "input": [term("user_id"), term("item"), term("cate"), term("ctx")],
                        "layers": [layer(32, RELU), layer(16, RELU)]}],
        "tower": {"input": [term("deep"), term("att")], "layers": [layer(16, RELU)], "head_bias": True, "classes": 1},
    }, tensors


CASES = {
    "zhougr1993_a_sigmoid_transcription": zhougr1993,
    "deepctr_torch_a_dice_nosoftmax": deepctr_torch,
    "deepctr_tf_a_dice_idmask_transcription": deepctr_tf,
    "fuxictr_a_dice_nosoftmax": fuxictr,
    "recbole_a_default_mean": recbole,
    "rechub_a_dice_nosoftmax": rechub,
    "tzrec_a_towers_relu_querypad": tzrec,
}


# ---------------------------------------------------------------------------------------------------------------------
# Golden cases


def column(feature, values):
    """`values`: one entry per row; of a feature of the user there is one row."""
    name, kind = feature["name"], feature["kind"]
    if kind == "ID":
        return {"name": name, "ids": values}
    if kind == "DENSE":
        return {"name": name, "values": [x for v in values for x in (v if isinstance(v, list) else [v])]}
    assert feature["scope"] == "USER", "no case sends a list per candidate or behaviour"
    return {"name": name, "ids": values[0]}


def golden_case(spec, request, scores):
    """Only what the network reads: some cases also carry ids that it ignores."""
    sent = [f for f in spec["features"] if "side" not in f]
    of_scope = {scope: [f for f in sent if f["scope"] == scope] for scope in ("USER", "CANDIDATE", "SEQUENCE")}
    return {
        "id": request["id"],
        "features": [column(f, [request["features"][f["name"]]]) for f in of_scope["USER"]],
        "sequences": [{"name": "hist", "columns": [column(f, request["sequences"][f["name"]])
                                                   for f in of_scope["SEQUENCE"]]}],
        "candidates": [column(f, [c[f["name"]] for c in request["candidates"]]) for f in of_scope["CANDIDATE"]],
        "scores": scores,
        "tolerance": TOLERANCE,
    }


# ---------------------------------------------------------------------------------------------------------------------
# --check: the ModelSpec evaluated as its .proto describes it, as far as these cases go


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


class Evaluation:
    """One golden case on one snapshot. All of a request's behaviours are valid until a mask says otherwise."""

    def __init__(self, spec, tensors, case):
        self.spec, self.tensors = spec, tensors
        self.features = {f["name"]: f for f in spec["features"]}
        self.tables = {t["name"]: t for t in spec["tables"]}
        self.slots = {s["name"]: s for s in spec["slots"]}
        self.columns = {c["name"]: c for c in case["features"] + case["candidates"] + case["sequences"][0]["columns"]}
        self.candidates = len(case["scores"])
        self.positions = self.valid_positions(spec["sequences"][0])

    def valid_positions(self, seq):
        key = next(f["name"] for f in self.spec["features"] if f["scope"] == "SEQUENCE" and "side" not in f)
        sent = len(self.columns[key]["ids"])
        assert sent <= seq["max_length"], "no case is truncated"
        masks = [self.columns[name]["ids"] for name in seq.get("valid_when_not_padding", [])]
        valid = [j for j in range(sent) if all(ids[j] != 0 for ids in masks)]
        return valid + [None] * (seq.get("padded_length", sent) - sent)  # None: padding

    def value(self, name, row):
        feature = self.features[name]
        if row is None:
            return feature["padding"]["id"]
        if "side" in feature:
            key = self.value(feature["side"]["key"], row)
            prefix = "side." + feature["side"]["side_table"]
            values = self.tensors[prefix + ".values"]
            if feature["kind"] != "ID_LIST":
                return values.row(key) if feature["kind"] == "DENSE" else values.values[key]
            begin, end = self.tensors[prefix + ".offsets"].values[key:key + 2]
            return values.values[begin:end].tolist()
        c = self.columns[name]
        row = 0 if feature["scope"] == "USER" else row
        if feature["kind"] == "DENSE":
            return c["values"][row * feature["width"]:(row + 1) * feature["width"]]
        return c["ids"] if feature["kind"] == "ID_LIST" else c["ids"][row]

    def table_row(self, name, row):
        t = self.tables[name]
        return self.tensors[t.get("tensor", "table." + name)].row(t.get("row_offset", 0) + row)

    def slot(self, name, row):
        s = self.slots[name]
        if "embed" in s:
            return self.table_row(s["embed"]["table"], self.value(s["embed"]["feature"], row))
        if "dense" in s:
            return self.value(s["dense"]["feature"], row)
        if "scaled" in s:
            index = self.value(s["scaled"]["feature"], row) if "feature" in s["scaled"] else 0
            scale = self.value(s["scaled"]["value"], row)[0]
            return [scale * x for x in self.table_row(s["scaled"]["table"], index)]
        rows = [self.table_row(s["pool"]["table"], i) for i in self.value(s["pool"]["feature"], row) if i != 0]
        total = [sum(x) for x in zip(*rows)] if rows else [0.0] * self.tables[s["pool"]["table"]]["dim"]
        return [x / (len(rows) + s["pool"]["divisor_epsilon"]) for x in total]

    def linear(self, prefix, x):
        bias = self.tensors.get(prefix + ".b")
        weight = self.tensors[prefix + ".w"]
        return [sum(w * v for w, v in zip(weight.row(o), x, strict=True)) + (bias.values[o] if bias else 0)
                for o in range(weight.shape[0])]

    def batch_norm(self, prefix, eps, x):
        mean, var = (self.tensors[f"{prefix}.{s}"].values for s in ("mean", "var"))
        out = [(v - m) / math.sqrt(s + eps) for v, m, s in zip(x, mean, var, strict=True)]
        if prefix + ".gamma" in self.tensors:
            gamma, beta = (self.tensors[f"{prefix}.{s}"].values for s in ("gamma", "beta"))
            out = [v * g + b for v, g, b in zip(out, gamma, beta, strict=True)]
        return out

    def activate(self, prefix, activation, x):
        if activation["kind"] == "RELU":
            return [max(v, 0) for v in x]
        if activation["kind"] == "SIGMOID":
            return [sigmoid(v) for v in x]
        unit = activation["dice"]
        z = x
        if unit["statistics"] == "RUNNING":
            z = self.batch_norm(prefix, unit["eps"], x)
        elif unit["statistics"] == "PER_ROW":
            mean = sum(x) / len(x)
            z = [(v - mean) / math.sqrt(sum((u - mean) ** 2 + unit["eps"] for u in x)) for v in x]
        alpha = [unit.get("alpha_value")] if "alpha_value" in unit else self.tensors[prefix + ".alpha"].values
        alpha = list(alpha) * (len(x) // len(alpha))
        return [v * (sigmoid(s) + a * (1 - sigmoid(s))) for v, s, a in zip(x, z, alpha, strict=True)]

    def layers(self, prefix, layers, x):
        for i, spec in enumerate(layers):
            x = self.linear(f"{prefix}.l{i}", x)
            if "bn" in spec:
                x = self.batch_norm(f"{prefix}.l{i}.bn", spec["bn"]["eps"], x)
            x = self.activate(f"{prefix}.l{i}.act", spec["activation"], x)
        return x

    def attention(self, g, candidate):
        spec = self.spec["attentions"][g]
        q = [x for name in spec["query"] for x in self.slot(name, candidate)]
        keys = [[x for name in spec["key"] for x in self.slot(name, j)] for j in self.positions]
        width = sum(self.slot_width(name) for name in spec["key"])
        q += [0.0] * (width - len(q))
        scores = []
        for k in keys:
            x = q + k + [a - b for a, b in zip(q, k)] + [a * b for a, b in zip(q, k)]
            scores += self.linear(f"att{g}.out", self.layers(f"att{g}", spec["layers"], x))
        if spec["scale"] != "SCALE_NONE":
            scores = [s / math.sqrt(width) for s in scores]
        if spec["normalise"] == "NORMALISE_SOFTMAX":
            total = sum(math.exp(s) for s in scores)
            scores = [math.exp(s) / total for s in scores]
        pooled = [sum(s * k[d] for s, k in zip(scores, keys)) for d in range(width)]
        if "post" in spec:
            pooled = self.linear(f"att{g}.post", self.batch_norm(f"att{g}.post.bn", spec["post"]["bn"]["eps"], pooled))
        return pooled

    def slot_width(self, name):
        (op,) = (v for k, v in self.slots[name].items() if k != "name")
        return self.tables[op["table"]]["dim"]

    def network(self, prefix, spec, vectors):
        def vector(ref):
            return vectors[ref["name"]][ref.get("begin", 0):ref.get("end", None)]

        x = []
        for t in spec["input"]:
            x += [a * b for a, b in zip(vector(t["a"]), vector(t["b"]), strict=True)] if "b" in t else vector(t["a"])
        if "in_bn" in spec:
            x = self.batch_norm(prefix + ".in_bn", spec["in_bn"]["eps"], x)
        return self.layers(prefix, spec["layers"], x)

    def score(self, candidate):
        vectors = {name: self.slot(name, candidate) for name, s in self.slots.items() if not self.of_sequence(s)}
        for g, spec in enumerate(self.spec["attentions"]):
            vectors[spec["name"]] = self.attention(g, candidate)
        for i, spec in enumerate(self.spec.get("pre_towers", [])):
            vectors[spec["name"]] = self.network(f"pre{i}", spec, vectors)
        tower = self.spec["tower"]
        logit = self.linear("head", self.network("tower", tower, vectors))[0]
        if tower.get("global_bias"):
            logit += self.tensors["bias.global"].values[0]
        for bias in tower.get("id_biases", []):
            logit += self.table_row(bias["table"], self.value(bias["feature"], candidate))[0]
        return sigmoid(logit)

    def of_sequence(self, slot):
        (op,) = (v for k, v in slot.items() if k != "name")
        return self.features[op.get("feature") or op["value"]]["scope"] == "SEQUENCE"


def largest_error(spec, tensors, cases):
    errors = []
    for case in cases:
        evaluation = Evaluation(spec, tensors, case)
        errors += [abs(evaluation.score(c) - expected) for c, expected in enumerate(case["scores"])]
    return max(errors)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def manifest(directory):
    """The canonical bytes: one line, members in this order, the digest of everything before it at the end."""
    files = []
    for path in sorted(directory.iterdir(), key=lambda p: p.name):
        if path.name == "manifest.json":
            continue
        blob = path.read_bytes()
        chunks = [hashlib.sha256(blob[i:i + CHUNK]) for i in range(0, len(blob), CHUNK)]
        root = hashlib.sha256(b"".join(c.digest() for c in chunks))
        files.append({"name": path.name, "size": len(blob), "chunks": [c.hexdigest() for c in chunks],
                      "root": root.hexdigest()})
    text = json.dumps({"format": 1, "unverified": False, "files": files}, separators=(",", ":"))[:-1] + ","
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{text}"digest":"{digest}"}}\n'


def convert(source, name):
    read = {f: json.loads((source / name / (f + ".json")).read_text()) for f in ("config", "inputs", "expected")}
    spec, tensors = CASES[name](read_safetensors(source / name / "weights.safetensors"),
                                read["inputs"].get("side_tables", {}))
    framework = read["config"]["framework"]
    spec = {"format": 1, "description": f"{framework['name']}, {framework['repo']} @ {framework['commit']}", **spec}
    cases = [golden_case(spec, request, expected["scores"])
             for request, expected in zip(read["inputs"]["requests"], read["expected"]["requests"], strict=True)]
    return spec, tensors, cases


def write(directory, spec, tensors, cases):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.json").write_text(json.dumps(spec, indent=1) + "\n")
    write_safetensors(directory / "weights.safetensors", tensors)
    (directory / "golden.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    (directory / "manifest.json").write_text(manifest(directory))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("destination", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="evaluate every snapshot against the framework's scores")
    args = parser.parse_args()
    ok = True
    for name in CASES:
        spec, tensors, cases = convert(args.source, name)
        write(args.destination / name / "1", spec, tensors, cases)
        if args.check:
            error = largest_error(spec, tensors, cases)
            ok &= error <= CHECK_LIMIT
            print(f"{name}: {len(cases)} requests, {sum(len(c['scores']) for c in cases)} scores, "
                  f"largest error {error:.2g}{'' if error <= CHECK_LIMIT else ' > ' + str(CHECK_LIMIT)}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
