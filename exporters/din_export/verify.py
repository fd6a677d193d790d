"""Holds a snapshot's files to the framework's scores, and says what could be wrong when they differ."""
from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .containers import safetensors
from .errors import ExportError, GoldenError
from .evaluate import Evaluator
from .golden import TOLERANCE, Case
from .snapshot import SPEC, WEIGHTS
from .tensors import Tensor


@dataclass
class Verified:
    cases: int
    scores: int
    largest_error: float


def verify(directory: str, cases: list[Case]) -> Verified:
    """Reads back what was written. GoldenError names the request, the difference, and a knob that explains it."""
    with open(os.path.join(directory, SPEC), encoding="utf-8") as file:
        spec = json.load(file)
    tensors = safetensors.read(os.path.join(directory, WEIGHTS))
    evaluator = Evaluator(spec, tensors)
    errors = [difference(evaluator, case) for case in cases]
    worst = max(float(e.max(initial=0)) for e in errors)
    if not worst <= TOLERANCE:
        raise GoldenError(_explain(spec, tensors, cases, errors))
    return Verified(len(cases), sum(len(c["scores"]) for c in cases), worst)


def difference(evaluator: Evaluator, case: Case) -> np.ndarray:
    scores = evaluator.scores(case)
    if scores.shape != (len(case["scores"]),):
        raise ExportError(f"case {case['id']}: {len(scores)} scores, expected {len(case['scores'])}")
    out = np.abs(scores - np.asarray(case["scores"], np.float64))
    return np.where(np.isnan(out), np.inf, out)


def _explain(spec: dict[str, Any], tensors: dict[str, Tensor], cases: list[Case], errors: list[np.ndarray]) -> str:
    wrong = [i for i, e in enumerate(errors) if not e.max(initial=0) <= TOLERANCE]
    i = wrong[0]
    candidate = int(errors[i].argmax())
    score = Evaluator(spec, tensors).scores(cases[i])[candidate]
    text = (
        f"golden request {cases[i]['id']}, candidate {candidate}: the exporter's own evaluation gives {score:.7g}, the "
        f"framework gave {cases[i]['scores'][candidate]:.7g}; |difference| {errors[i][candidate]:.3g} > {TOLERANCE:g}. "
        f"{len(wrong)} of {len(cases)} requests differ"
    )
    cause = next(explanations(spec, tensors, cases), None)
    if cause is not None:
        return f"{text}. First layer that explains it: {cause}"
    return f"{text}. {_where(cases, wrong)}"


def _where(cases: list[Case], wrong: list[int]) -> str:
    """A hint from which requests differ."""

    def behaviours(case: Case) -> int:
        return max((len(c.get("ids", c.get("keys", []))) for s in case["sequences"] for c in s["columns"]), default=0)

    empty = [i for i, c in enumerate(cases) if behaviours(c) == 0]
    if empty and set(wrong) <= set(empty):
        return "Only requests without behaviours differ: look at what an empty history is to give (attention: empty)"
    if empty and not set(wrong) & set(empty):
        return (
            "Requests without behaviours agree, those with some do not: look at the attention, its tables and its order"
        )
    return "No single knob explains it: look at tables and the order of the columns first, or at the weights themselves"


# --- Explanations: one knob changed at a time, from the input to the head -----------------------------------------


def explanations(spec: dict[str, Any], tensors: dict[str, Tensor], cases: list[Case]) -> Iterator[str]:
    """Single changes of the spec with which every case agrees."""
    for text, changed in variations(spec):
        try:
            evaluator = Evaluator(changed, tensors)
            if all(difference(evaluator, c).max(initial=0) <= TOLERANCE for c in cases):
                yield text
        except (ExportError, KeyError, ValueError, IndexError):
            continue  # this variation needs tensors or features that the model does not have


def variations(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
        out = copy.deepcopy(spec)
        at = out
        for step in path[:-1]:
            at = at[step]
        if value is None:
            at.pop(path[-1], None)
        else:
            at[path[-1]] = value
        return out

    def others(where: str, path: tuple[Any, ...], now: Any, values: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for value in values:
            if value != now:
                yield f"{where}: {value}, not {now}", changed(path, value)

    for i, s in enumerate(spec.get("sequences", [])):
        yield from others(
            f"sequence {s['name']}: keep", ("sequences", i, "keep"), s["keep"], ["KEEP_LAST", "KEEP_FIRST"]
        )
        masks = s.get("valid_when_not_padding", [])
        ids = [f["name"] for f in spec["features"] if f.get("sequence") == s["name"] and "id" in f.get("padding", {})]
        for mask in [ids[:n] for n in range(len(ids) + 1)] + [[n] for n in ids[1:]]:
            if mask != masks and "length_of" not in s:
                yield (
                    f"sequence {s['name']}: valid where {' and '.join(mask) or 'sent'}, "
                    f"not where {' and '.join(masks) or 'sent'}",
                    changed(("sequences", i, "valid_when_not_padding"), mask),
                )
        yield from _length_of(i, s, spec["features"], changed)
        yield from others(
            f"sequence {s['name']}: invalid", ("sequences", i, "invalid"), s["invalid"], ["DROP", "PARTICIPATE"]
        )
    for i, s in enumerate(spec.get("slots", [])):
        if "pool" in s:
            yield from others(
                f"pool {s['name']}: kind", ("slots", i, "pool", "kind"), s["pool"]["kind"], ["MEAN", "SUM", "MAX"]
            )
            yield from others(
                f"pool {s['name']}: skip_padding",
                ("slots", i, "pool", "skip_padding"),
                s["pool"].get("skip_padding", False),
                [True, False],
            )
    for g, a in enumerate(spec.get("attentions", [])):
        yield from _attention(g, a, others, changed)
    for p, network in enumerate(spec.get("pre_towers", [])):
        yield from _layers(f"pre-tower {network['name']}", ("pre_towers", p, "layers"), network["layers"], others)
    tower = spec["tower"]
    if len(tower.get("input", [])) > 1:
        yield "tower: the other order of its inputs", changed(("tower", "input"), tower["input"][::-1])
    if "in_bn" in tower:
        yield from others("tower.in_bn: eps", ("tower", "in_bn", "eps"), tower["in_bn"]["eps"], EPSILONS)
    yield from _layers("tower", ("tower", "layers"), tower.get("layers", []), others)
    if tower["classes"] == 2:
        now = tower.get("positive_class", 0)
        yield from others("head: positive_class", ("tower", "positive_class"), now, [0, 1])
    if tower.get("id_biases"):
        yield "head: no bias per id", changed(("tower", "id_biases"), [])
    if tower.get("global_bias"):
        yield "head: no global bias", changed(("tower", "global_bias"), False)
    for i, ref in enumerate(tower.get("wide", [])):
        yield f"wide: without {ref['name']}", changed(("tower", "wide"), tower["wide"][:i] + tower["wide"][i + 1 :])


EPSILONS = [1e-3, 1e-5, 1e-8, 1e-9]
PLAIN = ["RELU", "SIGMOID", "TANH", "NONE", "SILU"]


def _length_of(i: int, s: dict[str, Any], features: list[dict[str, Any]], changed: Any) -> Iterator[Any]:
    now = s.get("length_of")
    if now:
        yield f"sequence {s['name']}: its own length, not that of {now}", changed(("sequences", i, "length_of"), None)
    if s["invalid"] != "DROP" or s.get("valid_when_not_padding"):
        return
    padded = s.get("padded_length") or s["max_length"]
    for name in [f["name"] for f in features if f["scope"] == "USER" and f["kind"] == "ID_LIST" and f["name"] != now]:
        yield (
            f"sequence {s['name']}: the length of {name}, not {f'that of {now}' if now else 'its own'}",
            changed(("sequences", i), {**s, "padded_length": padded, "length_of": name}),
        )


def _attention(g: int, a: dict[str, Any], others: Any, changed: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    at = ("attentions", g)
    if len(a["query"]) > 1:
        yield f"attention {a['name']}: the other order of query slots", changed((*at, "query"), a["query"][::-1])
    if len(a["key"]) > 1:
        yield f"attention {a['name']}: the other order of key slots", changed((*at, "key"), a["key"][::-1])
    orders = [
        ["Q", "K", "Q_MINUS_K", "Q_TIMES_K"],
        ["K", "Q", "K_MINUS_Q", "Q_TIMES_K"],
        ["Q", "K", "K_MINUS_Q", "Q_TIMES_K"],
        ["K", "Q", "Q_MINUS_K", "Q_TIMES_K"],
    ]
    yield from others(f"attention {a['name']}: input", (*at, "input"), a["input"], orders)
    yield from _layers(f"attention {a['name']}", (*at, "layers"), a["layers"], others)
    for knob, values in (
        ("scale", ["SCALE_NONE", "SCALE_INVERSE_SQRT_WIDTH"]),
        ("out_activation", ["NONE", "SIGMOID"]),
        ("empty", ["EMPTY_ZERO", "EMPTY_POSITIONS_MEAN"]),
    ):
        yield from others(f"attention {a['name']}: {knob}", (*at, knob), a[knob], values)
    # What an empty history gives goes with it.
    for normalise, empty in (
        ("NORMALISE_NONE", "EMPTY_ZERO"),
        ("NORMALISE_SIGMOID", "EMPTY_ZERO"),
        ("NORMALISE_SOFTMAX", "EMPTY_ZERO"),
        ("NORMALISE_SOFTMAX", "EMPTY_POSITIONS_MEAN"),
    ):
        if normalise != a["normalise"]:
            yield (
                f"attention {a['name']}: normalise: {normalise} (and {empty}), not {a['normalise']}",
                changed(at, {**a, "normalise": normalise, "empty": empty}),
            )


def _layers(
    where: str, path: tuple[Any, ...], layers: list[dict[str, Any]], others: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    for i, layer in enumerate(layers):
        act = layer["activation"]
        if "bn" in layer:
            yield from others(
                f"{where}, layer {i}: BatchNorm eps", (*path, i, "bn", "eps"), layer["bn"]["eps"], EPSILONS
            )
        if act["kind"] == "DICE" and "eps" in act["dice"]:
            yield from others(
                f"{where}, layer {i}: Dice eps", (*path, i, "activation", "dice", "eps"), act["dice"]["eps"], EPSILONS
            )
        yield from others(
            f"{where}, layer {i}: activation", (*path, i, "activation"), act, [{"kind": k} for k in PLAIN]
        )
