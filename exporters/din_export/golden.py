"""The framework's own requests and scores: from inputs.json and expected.json to golden cases."""
from __future__ import annotations

import math
import os
from typing import Any

from .conversion import SideTables
from .description import check_kind
from .errors import ExportError
from .strict_json import load_json

TOLERANCE = 1e-5  # the largest difference that a published snapshot may show

Case = dict[str, Any]


def load_inputs(directory: str) -> dict[str, Any]:
    return check_kind("inputs.json", load_json(os.path.join(directory, "inputs.json")), dict)


def load_side_tables(path: str) -> SideTables:
    """A JSON object of columns, or a file of the form of inputs.json."""
    data = load_json(path)
    if isinstance(data, dict) and isinstance(data.get("side_tables"), dict):
        data = data["side_tables"]
    if not isinstance(data, dict):
        raise ExportError(f"{path}: not a JSON object of side tables")
    return data


def golden_cases(spec: dict[str, Any], inputs: dict[str, Any], directory: str) -> list[Case]:
    """One per request, in the proto's form."""
    expected = load_json(os.path.join(directory, "expected.json"))
    scores = {str(e.get("id")): e.get("scores") for e in _requests(expected, "expected.json")}
    cases = []
    for request in _requests(inputs, "inputs.json"):
        name = str(request.get("id", len(cases)))
        if name not in scores:
            raise ExportError(f"expected.json: no scores for request {name}")
        cases.append(_case(spec, request, name, scores.pop(name)))
    if scores:
        raise ExportError(f"inputs.json: no request {next(iter(scores))}, which expected.json has scores for")
    if not cases:
        raise ExportError(f"{directory}: inputs.json has no requests")
    return cases


def _requests(data: Any, name: str) -> list[dict[str, Any]]:
    requests = data.get("requests") if isinstance(data, dict) else None
    if not isinstance(requests, list) or not all(isinstance(r, dict) for r in requests):
        raise ExportError(f"{name}: no list of requests")
    ids = [str(r.get("id")) for r in requests]
    if len(set(ids)) != len(ids):
        raise ExportError(f"{name}: two requests have the same id")
    return requests


def _case(spec: dict[str, Any], request: dict[str, Any], name: str, scores: Any) -> Case:
    where = f"inputs.json: request {name}"
    candidates = check_kind(f"{where}: candidates", request.get("candidates"), list)
    _check_scores(scores, len(candidates), name)
    user = check_kind(f"{where}: features", request.get("features", {}), dict)
    lists = check_kind(f"{where}: sequences", request.get("sequences", {}), dict)
    case: Case = {"id": name, "features": [], "sequences": [], "candidates": []}
    sequences: dict[str, list[dict[str, Any]]] = {s["name"]: [] for s in spec.get("sequences", [])}
    for feature in spec.get("features", []):
        at = f"{where}: {feature['name']}"
        if feature["scope"] == "USER":
            value = user.get(feature["name"], lists.get(feature["name"]))
            if (column := _column(feature, [value], at)) is not None:
                case["features"].append(column)
        elif feature["scope"] == "SEQUENCE":
            value = lists.get(feature["name"], user.get(feature["name"]))
            value = None if value is None else check_kind(at, value, list)
            if (column := _column(feature, value, at)) is not None:
                sequences[feature["sequence"]].append(column)
        elif (column := _column(feature, [c.get(feature["name"]) for c in candidates], at)) is not None:
            case["candidates"].append(column)
    case["sequences"] = [{"name": n, "columns": columns} for n, columns in sequences.items()]
    _check_lengths(spec, request, where)
    return {**case, "scores": scores, "tolerance": TOLERANCE}


def _check_scores(scores: Any, count: int, name: str) -> None:
    if not isinstance(scores, list) or len(scores) != count:
        got = len(scores) if isinstance(scores, list) else scores
        raise ExportError(f"expected.json: request {name}: {got} scores for {count} candidates")
    for i, score in enumerate(scores):
        if not isinstance(score, (int, float)) or isinstance(score, bool) or not math.isfinite(score):
            raise ExportError(
                f"expected.json: request {name}, candidate {i}: score {score!r} is no number; a framework that gives "
                "NaN (such as a softmax over -inf for an empty history) has no score to reproduce: leave that "
                "request out, and decide what an empty history is to score"
            )
        if not 0 <= score <= 1:
            raise ExportError(
                f"expected.json: request {name}, candidate {i}: score {score} is no probability; give scores, not "
                "logits"
            )


def _check_lengths(spec: dict[str, Any], request: dict[str, Any], where: str) -> None:
    lists, lengths = request.get("sequences", {}), {}
    for f in spec.get("features", []):
        if f["scope"] == "SEQUENCE" and isinstance(lists.get(f["name"]), list):
            first = lengths.setdefault(f["sequence"], (f["name"], len(lists[f["name"]])))
            if first[1] != len(lists[f["name"]]):
                raise ExportError(
                    f"{where}: {f['name']} has {len(lists[f['name']])} behaviours, {first[0]} has {first[1]}"
                )


def _column(feature: dict[str, Any], rows: list[Any] | None, where: str) -> dict[str, Any] | None:
    """None where a side table supplies the feature."""
    missing = rows is None or any(v is None for v in rows)
    if missing and "side" in feature:
        return None
    if missing:
        raise ExportError(f"{where}: missing, but the model reads it ({feature['scope'].lower()}, {feature['kind']})")
    if feature["kind"] == "DENSE":
        values = [x for v in rows for x in (v if isinstance(v, list) else [v])]
        if len(values) != len(rows) * feature["width"] or not all(_is_number(v) for v in values):
            raise ExportError(f"{where}: expected {feature['width']} finite numbers per row")
        return {"name": feature["name"], "values": values}
    if feature["kind"] == "ID":
        return {"name": feature["name"], **_ids([_one(v, where) for v in rows], where)}
    lists = [check_kind(where, v, list) for v in rows]
    out = {"name": feature["name"], **_ids([v for row in lists for v in row], where)}
    if feature["scope"] != "USER":
        offsets = [0]
        for row in lists:
            offsets.append(offsets[-1] + len(row))
        out["offsets"] = offsets
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _one(value: Any, where: str) -> Any:
    if isinstance(value, list):
        if len(value) != 1:
            raise ExportError(f"{where}: {len(value)} ids where one is expected")
        return value[0]
    return value


def _ids(values: list[Any], where: str) -> dict[str, Any]:
    if values and all(isinstance(v, str) for v in values):
        return {"keys": values}
    ids = []
    for v in values:
        if isinstance(v, float) and v.is_integer():
            v = int(v)
        if not isinstance(v, int) or isinstance(v, bool) or not -(1 << 63) <= v < 1 << 63:
            raise ExportError(f"{where}: {v!r} is not an id")
        ids.append(v)
    return {"ids": ids}
