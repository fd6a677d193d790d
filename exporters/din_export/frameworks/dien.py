"""Model_DIN of mouna99/dien @ 1f314d1 and of alibaba/x-deeplearning @ a710108.

Their Dice takes the mean and variance of the batch at inference, too, and the history's sum goes over padding: a score
depends on the requests beside it. With statistics that somebody froze it is one function of the request.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..checkpoint import Mapping
from ..conversion import Conversion
from ..description import check_kind
from ..errors import ExportError
from ..layers import KERAS_BN_EPS, PRELU, SIGMOID, TENSORFLOW, LayerReader, dice
from ..model import UNLIMITED, float32, part, term
from ..tensors import MappedTensor
from .zhougr1993 import dense_stack

NAME = "dien"
REPO = "mouna99/dien"
ALIASES = ("dien", "mouna99/dien", "Model_DIN")
HARMLESS: set[str] = {"HIDDEN_SIZE", "ATTENTION_SIZE", "use_negsampling", "batch_size", "note"}

EPS = 1e-9
TABLES = {"uid": "uid_embedding", "mid": "mid_embedding", "cat": "cat_embedding"}
# Spellings of frozen statistics, beside frozen_statistics.<layer>.{mean,var}: members of the description, and the
# endings of <layer>/mean, <layer>/var; std is the standard deviation that the graph divides by.
FROZEN = ("frozen_statistics", "frozen_stats", "frozen", "batch_statistics", "dice_statistics", "statistics")
MEAN = ("mean", "moving_mean", "running_mean", "frozen_mean", "batch_mean")
VAR = ("var", "variance", "moving_variance", "running_var", "frozen_var", "frozen_variance", "batch_var")
STD = ("std", "frozen_std", "batch_std")
# Scope -> what the network reads there, and its name in the reader.
FEATURES = {"USER": ("uid",), "CANDIDATE": ("mid", "cat"), "SEQUENCE": ("mid_his", "cat_his")}


def convert(c: Conversion) -> None:
    Dien(c, needs_bn=False).run()


class Dien:
    def __init__(self, c: Conversion, needs_bn: bool) -> None:
        self.c, self.d, self.model = c, c.description, c.model
        self.needs_bn = needs_bn
        self.frozen: dict[str, Any] = {}
        for member in FROZEN:
            for place in (c.description.data, c.description.hyperparameters):
                if member in place:
                    self.frozen.update(check_kind(member, place[member], dict))
        self.reader = LayerReader(c.checkpoint, c.model, TENSORFLOW)
        gru = next((n for n in c.checkpoint.tensors if "gru" in n.lower() or "rnn" in n.lower()), None)
        if gru is not None:
            raise ExportError(
                f"tensor {gru}: a GRU; DIEN's recurrent variants are outside DIN's family and this server does not "
                "run them"
            )
        self.has_dice = any("alphadice_" in n for n in c.checkpoint.tensors)
        self.d.require_padding_behind()
        self.check_frozen()

    def check_frozen(self) -> None:
        needed = [n for n in (("dice_1", "dice_2") if self.has_dice else ()) if not self.has_statistics(n)]
        if self.needs_bn and "bn1" not in self.frozen:
            needed.append("bn1")
        if not needed:
            return
        training = " and bn1 runs in training mode" if self.needs_bn else ""
        raise ExportError(
            f"{', '.join(needed)}: no frozen statistics. This model's Dice normalises with the mean and variance of "
            f"the batch at inference{training}, so that a score depends on the requests beside it; a server cannot "
            "reproduce that. Run the training set through the network once, average mean and variance of every unit "
            f"before dice_1 and dice_2{' and of every input of bn1' if self.needs_bn else ''}, and give them in the "
            'description: "frozen_statistics": {"dice_1": {"mean": [...], "var": [...]}, "dice_2": {...}, '
            '"padded_length": 0} (padded_length: how many positions histories were padded to, 0 where each request is '
            "its own batch), or as tensors dice_1/moving_mean and dice_1/moving_variance"
        )

    def has_statistics(self, name: str) -> bool:
        return name in self.frozen or any(f"{name}/{m}" in self.c.checkpoint for m in MEAN)

    def run(self) -> None:
        self.dim = self.d.hyper("EMBEDDING_DIM", int, 18)
        self.declare()
        q = [self.model.embed(self.names["mid"], "mid"), self.model.embed(self.names["cat"], "cat")]
        keys = [self.model.embed(self.names["mid_his"], "mid"), self.model.embed(self.names["cat_his"], "cat")]
        padded = check_kind("frozen_statistics.padded_length", self.frozen.get("padded_length", 0), int)
        # No limit in the graph; the reader keeps the last ones when it has one, and no history is longer than the batch.
        length = self.d.hyper("maxlen", (int, type(None)), None) or padded or UNLIMITED
        self.c.sequence("hist", min(length, padded or length), "KEEP_LAST", fixed=padded > 0)
        units = self.d.units("att_units", [80, 40, 1])[:-1]
        layers = dense_stack(
            self.reader,
            "f{}_attnull" if "f1_attnull/kernel" in self.c.checkpoint else "f{}_att",
            units,
            [SIGMOID],
            8 * self.dim,
            "att0",
            "att0.out",
            "net sizes 80-40-1",
        )
        attention = self.model.attention("att", "hist", q, keys, layers=layers, normalise="NORMALISE_SOFTMAX")
        total = self.model.sequence_pool("hist_sum", "hist", self.summed(padded) if padded else keys, "SUM")
        user = self.model.embed(self.names["uid"], "uid")
        products = [term(part(total, i * self.dim, (i + 1) * self.dim), v) for i, v in enumerate(q)]
        terms = [term(user), *[term(v) for v in q], term(total), *products, term(attention)]
        self.tower(terms, padded)

    # --- Features --------------------------------------------------------------------------------------------------

    def declare(self) -> None:
        for table, stem in TABLES.items():
            source = next((n for n in (f"{stem}_var", stem) if n in self.c.checkpoint), f"{stem}_var")
            rows = self.c.checkpoint.shape(source)[0] if source in self.c.checkpoint else 0
            self.model.table(table, self.c.checkpoint.take(source, (rows, self.dim), f"table.{table}", "EMBEDDING_DIM"))
        self.names: dict[str, str] = {}
        for scope, roles in FEATURES.items():
            found = self.d.features_of(scope) or list(roles)
            if len(found) != len(roles):
                raise ExportError(
                    f"description: feature_scopes: {', '.join(found)} are {scope.lower()}, expected {len(roles)}: "
                    f"{', '.join(roles)}"
                )
            cats = [n for n in found if "cat" in n]
            ordered = [n for n in found if n not in cats] + cats
            for role, name in zip(roles, ordered, strict=True):
                self.names[role] = name
                table = role.removesuffix("_his")
                ids = self.model.identity(table, self.model.named("tables", table)["rows"])
                self.model.feature(name, scope, "ID", "hist" if scope == "SEQUENCE" else None, id_map=ids)

    def summed(self, padded: int) -> list[str]:
        """Keys for the sum over `padded` positions: E[id] - E[0] for each behaviour; padded * E[0] is added later."""
        slots = []
        for table, role in (("mid", "mid_his"), ("cat", "cat_his")):
            tensor = self.model.tensors[f"table.{table}"]
            row = tensor.gather(np.array([0]))[0]
            name = self.model.table(
                f"{table} without padding", MappedTensor(tensor, "F32", lambda rows, row=row: rows - row)
            )
            slots.append(self.model.embed(self.names[role], name))
        return slots

    # --- The tower -------------------------------------------------------------------------------------------------

    def tower(self, terms: list[dict[str, Any]], padded: int) -> None:
        width = 9 * self.dim
        units = self.d.units("mlp_units", [200, 80, 2])[:-1]
        weight, bias = self.folded(units[0], width, padded)
        self.model.put("tower.l0.w", float32(weight))
        self.model.put("tower.l0.b", float32(bias))
        layers = []
        for i, n_out in enumerate(units):
            at = f"tower.l{i}"
            if i > 0:
                self.reader.linear(f"f{i + 1}/kernel", f"f{i + 1}/bias", units[i - 1], n_out, at, "mlp_units")
            layers.append({"units": n_out, "bias": True, "activation": self.activation(i, n_out, at)})
        last = len(units) + 1
        self.reader.linear(
            f"f{last}/kernel", f"f{last}/bias", units[-1], 2, "head", "two classes, the first is the click"
        )
        self.model.spec["tower"] = {
            "input": terms,
            "layers": layers,
            "head_bias": True,
            "classes": 2,
            "positive_class": 0,
        }

    def folded(self, n_out: int, width: int, padded: int) -> tuple[np.ndarray, np.ndarray]:
        """bn1 and f1 as one Linear; a padded sum's constant goes into the columns of q and the bias."""
        place, why = "tower.l0 (bn1 and f1 in one)", "9 * EMBEDDING_DIM"
        weight = self.reader.values("f1/kernel", (width, n_out), place, why).T
        bias = self.reader.vector("f1/bias", n_out, place, "mlp_units")
        gamma, beta = (self.reader.vector(f"bn1/{n}", width, place, why) for n in ("gamma", "beta"))
        mean, var = self.statistics("bn1", width, place)
        scale = gamma / np.sqrt(var + KERAS_BN_EPS)
        bias = bias + weight @ (beta - mean * scale)
        weight = weight * scale
        if padded:
            d = self.dim
            pad = (
                np.concatenate([self.model.tensors[f"table.{t}"].gather(np.array([0]))[0] for t in ("mid", "cat")])
                * padded
            )
            bias = bias + weight[:, 3 * d : 5 * d] @ pad  # hist_sum
            weight[:, d : 3 * d] += weight[:, 5 * d : 7 * d] * pad  # q * hist_sum
        return weight, bias

    def statistics(self, name: str, units: int, place: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance, from the description where it froze them, else from the checkpoint."""
        given = check_kind(f"frozen_statistics.{name}", self.frozen.get(name, {}), dict)
        if given:
            pattern = "|".join(MEAN + VAR + STD)
            self.c.checkpoint.ignore_matching(
                rf"^{name}/({pattern})$", "frozen_statistics in the description replace it"
            )

        def find(spellings: tuple[str, ...], what: str) -> np.ndarray | None:
            if given:
                key = next((k for k in spellings if k in given), None)
                return None if key is None else self.given(f"{name}.{key}", given[key], units, place)
            source = next((k for k in spellings if f"{name}/{k}" in self.c.checkpoint), None)
            return None if source is None else self.reader.vector(f"{name}/{source}", units, place, what)

        mean, var, std = (find(k, "the layer's units") for k in (MEAN, VAR, STD))
        if var is None and std is not None:
            var = std**2 - EPS  # their std has the epsilon under its root
        for part, values in (("mean", mean), ("var", var)):
            if values is None:
                raise ExportError(f"description: frozen_statistics.{name}.{part}: missing, expected {units} numbers")
        if (var < -EPS).any():
            raise ExportError(f"description: frozen_statistics.{name}.var: {var.min()}; a variance is not negative")
        return mean, np.maximum(var, 0)

    def given(self, name: str, value: Any, units: int, place: str) -> np.ndarray:
        values = np.asarray(check_kind(f"frozen_statistics.{name}", value, list), np.float64)
        if values.shape != (units,) or not np.isfinite(values).all():
            raise ExportError(f"description: frozen_statistics.{name}: expected {units} finite numbers")
        self.c.checkpoint.mappings.append(Mapping(f"frozen_statistics.{name}", [units], place, "description"))
        return values

    def activation(self, i: int, units: int, at: str) -> dict[str, Any]:
        if not self.has_dice:
            scope = f"prelu{i + 1}"
            self.reader.alpha(f"{scope}/prelu_{scope}", units, f"{at}.act.alpha", "prelu")
            return PRELU.spec()
        name = f"dice_{i + 1}"
        alpha = next(
            (n for n in (f"{name}/alpha{name}", f"alpha{name}") if n in self.c.checkpoint), f"{name}/alpha{name}"
        )
        self.reader.alpha(alpha, units, f"{at}.act.alpha", "mlp_units")
        mean, var = self.statistics(name, units, f"{at}.act")
        # (x - mean) / (sqrt(var + eps) + eps), as a variance that the usual form gives the same with.
        self.model.put(f"{at}.act.mean", float32(mean))
        self.model.put(f"{at}.act.var", float32((np.sqrt(var + EPS) + EPS) ** 2 - EPS))
        return dice("RUNNING", EPS).spec()
