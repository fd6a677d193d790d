"""One's own PyTorch code: the description holds the ModelSpec itself, and tensors carry the names that it asks for, or
torch's spelling of them (exporters/README.md has the table)."""
from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..conversion import Conversion
from ..description import check_kind
from ..errors import ExportError
from ..expected import Expected, expected_tensors
from ..layers import TORCH, LayerReader
from ..model import float32, int64
from ..tensors import ArrayTensor

NAME = "canonical"
REPO = ""
ALIASES = ("canonical", "pytorch", "own")
HARMLESS: set[str] = set()

# Endings of the snapshot's names -> how a torch module spells them.
SPELLINGS = (
    (r"^(table\..*)$", r"\1.weight"),
    (r"\.w$", ".weight"),
    (r"\.b$", ".bias"),
    (r"\.act\.mean$", ".act.bn.running_mean"),
    (r"\.act\.var$", ".act.bn.running_var"),
    (r"\.act\.gamma$", ".act.bn.weight"),
    (r"\.act\.beta$", ".act.bn.bias"),
    (r"\.act\.alpha$", ".act.weight"),
    (r"bn\.mean$", "bn.running_mean"),
    (r"bn\.var$", "bn.running_var"),
    (r"bn\.gamma$", "bn.weight"),
    (r"bn\.beta$", "bn.bias"),
)


def convert(c: Conversion) -> None:
    spec = c.description.data.get("spec", c.description.data if "tower" in c.description.data else None)
    if not isinstance(spec, dict):
        raise ExportError(
            'description: no "spec", which for canonical is the ModelSpec of proto/model_spec.proto as JSON; '
            "din-export canonical --template prints one"
        )
    description = c.model.spec["description"]
    c.model.spec = {**{k: v for k, v in spec.items() if k not in ("framework", "case", "notes", "kind")}, "format": 1}
    c.model.spec.setdefault("description", description)
    try:
        wanted = expected_tensors(c.model.spec)
    except (KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"description: spec: malformed at {error}") from error
    reader = LayerReader(c.checkpoint, c.model, TORCH)
    for expected in wanted:
        place(c, reader, expected)
    c.checkpoint.ignore_matching(r"\.num_batches_tracked$", "a counter of training")


def source_name(c: Conversion, name: str) -> str:
    for pattern, spelling in SPELLINGS:
        other = re.sub(pattern, spelling, name)
        if name not in c.checkpoint and other != name and other in c.checkpoint:
            return other
    return name


def place(c: Conversion, reader: LayerReader, e: Expected) -> None:
    name = source_name(c, e.name)
    if e.kind == "table":
        rows = (
            max(c.checkpoint.shape(name)[0], e.shape[0])
            if name in c.checkpoint and c.checkpoint.shape(name)
            else e.shape[0]
        )
        c.model.put(e.name, c.checkpoint.take(name, (rows, e.shape[1]), e.name, e.why))
    elif e.kind == "alpha":
        reader.alpha(name, e.shape[0], e.name, e.why)
    elif e.kind == "weight" and len(e.shape) == 1:
        c.model.put(e.name, float32(reader.vector(name, e.shape[0], e.name, e.why)))
    elif e.kind == "weight":
        c.model.put(e.name, float32(reader.values(name, e.shape, e.name, e.why)))
    else:
        from_lists(c, e)


def from_lists(c: Conversion, e: Expected) -> None:
    """Vocabularies and side tables: from --side-tables, or the description's `vocabularies`."""
    if e.name in c.model.tensors:
        return
    found = re.fullmatch(r"(vocab|side)\.(.+?)\.(keys|values|offsets)(?:\.(bytes|offsets))?", e.name)
    assert found is not None, e.name
    group, name, part, _ = found.groups()
    if group == "vocab":
        given = c.description.get("vocabularies", dict, {}).get(name)
        values = check_kind(f"vocabularies.{name}", given, list)
    else:
        column = c.column(name, e.why)
        values = list(column)
    put_values(c, f"{group}.{name}", "keys" if part == "keys" else "values", values, e)


def put_values(c: Conversion, at: str, part: str, values: list[Any], e: Expected) -> None:
    if e.kind == "values":
        c.model.put(e.name, float32(np.asarray(values, np.float64).reshape(e.shape)))
    elif all(isinstance(v, list) for v in values) and values:
        c.model.put(f"{at}.values", int64(v for row in values for v in row))
        c.model.put(f"{at}.offsets", int64(np.cumsum([0] + [len(row) for row in values])))
    elif all(isinstance(v, str) for v in values) and values:
        encoded = [v.encode() for v in values]
        c.model.put(f"{at}.{part}.bytes", ArrayTensor(np.frombuffer(b"".join(encoded), np.uint8), "U8"))
        c.model.put(f"{at}.{part}.offsets", int64(np.cumsum([0] + [len(b) for b in encoded])))
    else:
        c.model.put(f"{at}.{part}", int64(values))
