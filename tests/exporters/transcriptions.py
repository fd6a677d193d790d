"""Frameworks that do not run here, transcribed from their graphs into a few lines of numpy each: random weights in the
framework's own names, random requests, and the scores that the graph gives. Nothing is shared with the exporters."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Case:
    config: dict[str, Any]
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    side_tables: dict[str, Any] = field(default_factory=dict)


class Weights:
    """Draws tensors and keeps them; every third unit of a Dice or BatchNorm lives at a tiny scale."""

    def __init__(self, seed: int) -> None:
        self.rng, self.out = np.random.default_rng(seed), {}

    def put(self, name: str, values: np.ndarray) -> np.ndarray:
        self.out[name] = np.asarray(values, np.float32)
        return self.out[name].astype(np.float64)

    def table(self, name: str, rows: int, dim: int) -> np.ndarray:
        return self.put(name, self.rng.normal(0, 0.5, (rows, dim)))

    def dense(
        self, name: str, n_in: int, n_out: int, kernel: str = "/kernel", bias: str = "/bias", small: bool = False
    ) -> Any:
        """x -> x @ kernel + bias, in TensorFlow's layout."""
        w, b = self.rng.normal(0, 1.2 / np.sqrt(n_in), (n_in, n_out)), self.rng.normal(0, 0.1, n_out)
        if small:
            w[:, 1::3] *= 1e-3
            b[1::3] *= 1e-3
        k = self.put(name + kernel, w)
        if not bias:
            return lambda x: x @ k
        c = self.put(name + bias, b)
        return lambda x: x @ k + c

    def statistics(self, name: str, n: int, small: bool = True) -> tuple[np.ndarray, np.ndarray]:
        mean, var = self.rng.normal(0, 0.3, n), self.rng.uniform(0.2, 1.5, n)
        if small:
            mean[1::3] *= 1e-3
            var[1::3] = 1e-6
        return self.put(name + "/moving_mean", mean), self.put(name + "/moving_variance", var)

    def batch_norm(self, name: str, n: int, eps: float = 1e-3, affine: bool = True, small: bool = True) -> Any:
        gamma = self.put(name + "/gamma", self.rng.normal(1, 0.3, n)) if affine else 1.0
        beta = self.put(name + "/beta", self.rng.normal(0, 0.2, n)) if affine else 0.0
        mean, var = self.statistics(name, n, small)
        return lambda x: (x - mean) / np.sqrt(var + eps) * gamma + beta


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def dice(p: np.ndarray, alpha: np.ndarray, x: np.ndarray) -> np.ndarray:
    return alpha * (1 - p) * x + p * x


def pieces(q: np.ndarray, k: np.ndarray, order: str = "qk") -> np.ndarray:
    """[q, k, q - k, q * k] per position, or with the key first."""
    q = np.broadcast_to(q, k.shape)
    return np.concatenate([q, k, q - k, q * k] if order == "qk" else [k, q, k - q, k * q], axis=-1)


# --- zhougr1993: din/model.py and din/model_dice.py ---------------------------------------------------------------


def zhougr1993(seed: int, with_dice: bool) -> Case:
    w, h, half, items = Weights(seed), 12, 6, 40
    item, cate = w.table("item_emb_w", items, half), w.table("cate_emb_w", 7, half)
    w.table("user_emb_w", 11, h)
    bias = w.put("item_b", w.rng.normal(0, 0.3, items))
    cate_list = w.rng.integers(0, 7, items)
    f1, f2, f3 = w.dense("f1_att", 4 * h, 9), w.dense("f2_att", 9, 5), w.dense("f3_att", 5, 1)
    bn, fcn, b1 = w.batch_norm("batch_normalization", h), w.dense("hist_fcn", h, h), w.batch_norm("b1", 3 * h)
    w.batch_norm("hist_bn", h)
    t1, t2, t3 = w.dense("f1", 3 * h, 10, small=with_dice), w.dense("f2", 10, 6, small=with_dice), w.dense("f3", 6, 1)
    acts = [sigmoid, sigmoid]
    if with_dice:
        acts = []
        for i, n in ((1, 10), (2, 6)):
            alpha, beta = (w.put(f"{a}dice_{i}", w.rng.normal(0.5, 0.5, n)) for a in ("alpha", "beta"))
            norm = w.batch_norm(f"dice_{i}", n, affine=False)
            acts.append(lambda x, a=alpha, b=beta, norm=norm: dice(sigmoid(b * norm(x)), a, x))
    w.put("global_step", np.zeros(()))
    case = Case(
        {
            "framework": {
                "name": "DeepInterestNetwork (original authors, TF1)",
                "repo": "zhougr1993/DeepInterestNetwork",
            },
            "hyperparameters": {"hidden_units": h, "att_units": [9, 5, 1], "mlp_units": [10, 6, 1]},
            "feature_scopes": {"i": "candidate", "hist_i": "sequence", "user": "user (ignored by the network)"},
        },
        w.out,
        side_tables={"cate_list": cate_list.tolist()},
    )
    embed = lambda ids: np.concatenate([item[ids], cate[cate_list[ids]]], axis=-1)
    for r, n in enumerate((0, 1, 5, 23)):
        hist, cands = w.rng.integers(0, items, n), w.rng.integers(0, items, 5)
        scores = []
        for i in cands:
            q, k = embed(i), embed(hist)
            pooled = np.zeros(h)
            if n:
                s = f3(sigmoid(f2(sigmoid(f1(pieces(q, k))))))[:, 0] / np.sqrt(h)
                pooled = softmax(s) @ k
            u = fcn(bn(pooled))
            x = b1(np.concatenate([u, q, u * q]))
            logit = bias[i] + t3(acts[1](t2(acts[0](t1(x)))))[0]
            scores.append(float(np.float32(sigmoid(logit))))
        case.requests.append(
            {
                "id": f"r{r}",
                "features": {"user": 3},
                "sequences": {"hist_i": hist.tolist()},
                "candidates": [{"i": int(i)} for i in cands],
            }
        )
        case.scores.append(scores)
    return case


# --- PaddleRec: models/rank/din/net.py ----------------------------------------------------------------------------


def paddlerec(seed: int, static_names: bool) -> Case:
    w, d, items, cats = Weights(seed), 5, 40, 7
    names = [
        "hist_item_emb_attr",
        "hist_cat_emb_attr",
        "target_item_emb_attr",
        "target_cat_emb_attr",
        "target_item_seq_emb_attr",
        "target_cat_seq_emb_attr",
        "item_b_attr",
    ]
    spell = (lambda n: f"embedding_{names.index(n)}.w_0") if static_names else (lambda n: f"{n}.weight")
    t = {n: w.table(spell(n), items if "item" in n else cats, 1 if n == "item_b_attr" else d) for n in names}
    ending = (".w_0", ".b_0") if static_names else (".weight", ".bias")
    att, post, tower = (
        (["linear_0", "linear_1", "linear_2"], "linear_3", ["linear_4", "linear_5", "linear_6"])
        if static_names
        else (
            ["attention_layer.0", "attention_layer.2", "attention_layer.4"],
            "con_layer.0",
            ["con_layer.1", "con_layer.3", "con_layer.5"],
        )
    )
    a1, a2, a3 = (w.dense(n, i, o, *ending) for n, i, o in zip(att, (8 * d, 80, 40), (80, 40, 1)))
    con = w.dense(post, 2 * d, 2 * d, *ending)
    c1, c2, c3 = (w.dense(n, i, o, *ending) for n, i, o in zip(tower, (4 * d, 80, 40), (80, 40, 1)))
    case = Case(
        {
            "framework": {"name": "PaddleRec", "repo": "PaddlePaddle/PaddleRec"},
            "hyperparameters": {"item_emb_size": d, "cat_emb_size": d, "item_count": items, "cat_count": cats},
            "feature_scopes": {
                "hist_item_seq": "sequence",
                "hist_cat_seq": "sequence",
                "target_item": "candidate",
                "target_cat": "candidate",
            },
        },
        w.out,
    )
    for r, n in enumerate((1, 4, 9)):
        hi, hc = w.rng.integers(0, items, n), w.rng.integers(0, cats, n)
        cands = [(int(w.rng.integers(items)), int(w.rng.integers(cats))) for _ in range(4)]
        k = np.concatenate([t[names[0]][hi], t[names[1]][hc]], axis=-1)
        scores = []
        for i, c in cands:
            q = np.concatenate([t[names[4]][i], t[names[5]][c]])
            s = a3(sigmoid(a2(sigmoid(a1(pieces(q, k, "kq"))))))[:, 0] / np.sqrt(2 * d)
            x = np.concatenate([con(softmax(s) @ k), t[names[2]][i], t[names[3]][c]])
            logit = c3(sigmoid(c2(sigmoid(c1(x)))))[0] + t["item_b_attr"][i, 0]
            scores.append(float(np.float32(sigmoid(logit))))
        case.requests.append(
            {
                "id": f"r{r}",
                "features": {},
                "sequences": {"hist_item_seq": hi.tolist(), "hist_cat_seq": hc.tolist()},
                "candidates": [{"target_item": i, "target_cat": c} for i, c in cands],
            }
        )
        case.scores.append(scores)
    return case


# --- dien's Model_DIN, with frozen statistics ---------------------------------------------------------------------


def dien(seed: int, padded: int) -> Case:
    w, d = Weights(seed), 4
    uid, mid, cat = (w.table(f"{n}_embedding_var", rows, d) for n, rows in (("uid", 9), ("mid", 30), ("cat", 6)))
    f1, f2, f3 = (w.dense(f"f{i}_attnull", n_in, n_out) for i, n_in, n_out in ((1, 8 * d, 9), (2, 9, 5), (3, 5, 1)))
    bn1 = w.batch_norm("bn1", 9 * d)
    t1, t2, t3 = (w.dense(f"f{i}", n_in, n_out) for i, n_in, n_out in ((1, 9 * d, 10), (2, 10, 6), (3, 6, 2)))
    frozen, acts = {"padded_length": padded}, []
    for i, n in ((1, 10), (2, 6)):
        alpha = w.put(f"dice_{i}/alphadice_{i}", w.rng.normal(0, 0.5, n))
        mean, var = w.rng.normal(0, 0.3, n), w.rng.uniform(0.1, 1, n)
        frozen[f"dice_{i}"] = {"mean": mean.tolist(), "var": var.tolist()}
        acts.append(lambda x, a=alpha, m=mean, v=var: dice(sigmoid((x - m) / (np.sqrt(v + 1e-9) + 1e-9)), a, x))
    case = Case(
        {
            "framework": {"name": "dien", "repo": "mouna99/dien"},
            "hyperparameters": {"EMBEDDING_DIM": d, "att_units": [9, 5, 1], "mlp_units": [10, 6, 2]},
            "feature_scopes": {
                "uid": "user",
                "mid": "candidate",
                "cat": "candidate",
                "mid_his": "sequence",
                "cat_his": "sequence",
            },
            "frozen_statistics": frozen,
        },
        w.out,
    )
    for r, n in enumerate((1, 3, 7)):
        hm, hc, u = w.rng.integers(0, 30, n), w.rng.integers(0, 6, n), int(w.rng.integers(9))
        k = np.concatenate([mid[hm], cat[hc]], axis=-1)
        pad = np.concatenate([mid[0], cat[0]])
        total = k.sum(axis=0) + max(0, padded - n) * pad
        cands = [(int(w.rng.integers(30)), int(w.rng.integers(6))) for _ in range(4)]
        scores = []
        for m, c in cands:
            q = np.concatenate([mid[m], cat[c]])
            att = softmax(f3(sigmoid(f2(sigmoid(f1(pieces(q, k))))))[:, 0]) @ k
            x = bn1(np.concatenate([uid[u], q, total, q * total, att]))
            scores.append(float(np.float32(softmax(t3(acts[1](t2(acts[0](t1(x))))))[0] + 1e-8)))
        case.requests.append(
            {
                "id": f"r{r}",
                "features": {"uid": u},
                "sequences": {"mid_his": hm.tolist(), "cat_his": hc.tolist()},
                "candidates": [{"mid": m, "cat": c} for m, c in cands],
            }
        )
        case.scores.append(scores)
    return case


# --- DeepCTR on Keras ---------------------------------------------------------------------------------------------


def deepctr(seed: int, att_softmax: bool, dice_tower: bool, legacy_tables: bool) -> Case:
    w, maxlen = Weights(seed), 6
    seq = "sparse_seq_emb_hist_" if legacy_tables else "sparse_emb_"
    item, cate = w.table(f"{seq}item_id/embeddings", 40, 6), w.table(f"{seq}cate_id/embeddings", 8, 3)
    user, tags = w.table("sparse_emb_user/embeddings", 12, 4), w.table("sparse_seq_emb_tags/embeddings", 15, 5)
    at = "attention_sequence_pooling_layer_1/local_activation_unit_1"
    a = []
    for i, (n_in, n_out) in enumerate(((36, 9), (9, 4))):
        layer = w.dense(f"{at}/dnn_2", n_in, n_out, f"/kernel{i}", f"/bias{i}", small=True)
        name = f"{at}/dnn_2/dice_{i + 9}"
        alpha = w.put(f"{name}/dice_alpha", w.rng.normal(0, 0.5, n_out))
        norm = w.batch_norm(f"{name}/batch_normalization_{i + 9}", n_out, 1e-9, affine=False)
        a.append(lambda x, l=layer, al=alpha, nm=norm: dice(sigmoid(nm(l(x))), al, l(x)))
    score = w.dense(at, 4, 1)
    t = []
    for i, (n_in, n_out) in enumerate(((4 + 9 + 5 + 9 + 2, 10), (10, 6))):
        layer = w.dense("dnn_3", n_in, n_out, f"/kernel{i}", f"/bias{i}", small=dice_tower)
        if dice_tower:
            name = f"dnn_3/dice_{i + 11}"
            alpha = w.put(f"{name}/dice_alpha", w.rng.normal(0, 0.5, n_out))
            norm = w.batch_norm(f"{name}/batch_normalization_{i + 11}", n_out, 1e-9, affine=False)
            t.append(lambda x, l=layer, al=alpha, nm=norm: dice(sigmoid(nm(l(x))), al, l(x)))
        else:
            norm = w.batch_norm(f"dnn_3/batch_normalization_{i + 11}", n_out, small=False)
            t.append(lambda x, l=layer, nm=norm: np.tanh(nm(l(x))))
    head = w.dense("dense_1", 6, 1, bias="")
    bias = w.put("prediction_layer_1/global_bias", w.rng.normal(0, 0.2, 1))
    sparse = lambda n, v, e: {"type": "SparseFeat", "name": n, "vocabulary_size": v, "embedding_dim": e}
    varlen = lambda n, v, e, m, **k: {**sparse(n, v, e), "type": "VarLenSparseFeat", "maxlen": m, **k}
    case = Case(
        {
            "framework": {"name": "DeepCTR (TF/Keras)", "repo": "shenweichen/DeepCTR"},
            "hyperparameters": {
                "history_feature_list": ["item_id", "cate_id"],
                "att_hidden_size": [9, 4],
                "dnn_hidden_units": [10, 6],
                "att_weight_normalization": att_softmax,
                "dnn_activation": "Dice" if dice_tower else "tanh",
                "dnn_use_bn": not dice_tower,
            },
            "feature_columns": [
                sparse("user", 12, 4),
                sparse("item_id", 40, 6),
                sparse("cate_id", 8, 3),
                {"type": "DenseFeat", "name": "price", "dimension": 2},
                varlen("tags", 15, 5, 4, combiner="max"),
                varlen("hist_item_id", 40, 6, maxlen, embedding_name="item_id"),
                varlen("hist_cate_id", 8, 3, maxlen, embedding_name="cate_id"),
            ],
            "feature_scopes": {
                "user": "user",
                "item_id": "candidate",
                "cate_id": "candidate",
                "price": "candidate",
                "tags": "user",
                "hist_item_id": "sequence",
                "hist_cate_id": "sequence",
            },
        },
        w.out,
    )
    for r, n in enumerate((0, 1, 4, 6)):
        hi, hc = w.rng.integers(1, 40, n), w.rng.integers(0, 3, n)  # zeros in the second field: holes
        own, u = w.rng.integers(1, 15, 2 + r % 2), int(w.rng.integers(12))
        full = lambda ids: np.concatenate([ids, np.zeros(maxlen - len(ids), int)])
        k = np.concatenate([item[full(hi)], cate[full(hc)]], axis=-1)
        mask = (full(hi) != 0) & (full(hc) != 0)
        scores, cands = [], []
        for _ in range(4):
            i, c, price = int(w.rng.integers(40)), int(w.rng.integers(8)), w.rng.normal(0, 1, 2).astype(np.float32)
            q = np.concatenate([item[i], cate[c]])
            s = score(a[1](a[0](pieces(q, k))))[:, 0]
            s = softmax(np.where(mask, s, -(2.0**32) + 1)) if att_softmax else np.where(mask, s, 0)
            x = np.concatenate([user[u], q, tags[own].max(axis=0), s @ k, price])
            scores.append(float(np.float32(sigmoid(head(t[1](t[0](x)))[0] + bias[0]))))
            cands.append({"item_id": i, "cate_id": c, "price": price.astype(float).tolist()})
        case.requests.append(
            {
                "id": f"r{r}",
                "features": {"user": u, "tags": own.tolist()},
                "sequences": {"hist_item_id": hi.tolist(), "hist_cate_id": hc.tolist()},
                "candidates": cands,
            }
        )
        case.scores.append(scores)
    return case


ALL = {
    "zhougr1993 sigmoid": lambda s: zhougr1993(s, False),
    "zhougr1993 dice": lambda s: zhougr1993(s, True),
    "paddlerec static graph": lambda s: paddlerec(s, True),
    "paddlerec lists": lambda s: paddlerec(s, False),
    "dien alone": lambda s: dien(s, 0),
    "dien padded": lambda s: dien(s, 9),
    "deepctr softmax, dice tower": lambda s: deepctr(s, True, True, False),
    "deepctr mask, bn tower": lambda s: deepctr(s, False, False, False),
    "deepctr old table names": lambda s: deepctr(s, True, False, True),
}
