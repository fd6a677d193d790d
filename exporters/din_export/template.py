"""Prints a canonical description for given layer sizes: what a plain DIN of one's own needs, and where to change it."""
from __future__ import annotations

import json
from typing import Any

from .errors import ExportError


def template(dim: int, attention: list[int], tower: list[int], rows: dict[str, int]) -> str:
    """A DIN over item and category, shared with the history, and a user; ReLU, no softmax."""
    for what, sizes in (("--att-units", attention), ("--tower-units", tower)):
        if not sizes or min(sizes) < 1:
            raise ExportError(f"{what}: {sizes}; layer sizes are positive, and there is at least one")
    fields = [n for n in rows if n != "user"]
    if not fields:
        raise ExportError("--rows: no field of the item; give some, such as item=1000,cate=20,user=500")

    def layers(sizes: list[int]) -> list[dict[str, Any]]:
        return [{"units": n, "bias": True, "activation": {"kind": "RELU"}} for n in sizes]

    users = ["user"] if "user" in rows else []
    spec: dict[str, Any] = {
        "id_maps": [
            {"name": n, "id_type": "INT64", "identity": {"size": r}, "out_of_vocabulary": "ZERO"}
            for n, r in rows.items()
        ],
        "tables": [{"name": n, "rows": r, "dim": dim} for n, r in rows.items()],
        "features": [{"name": n, "scope": "USER", "kind": "ID", "id_map": n} for n in users]
        + [{"name": n, "scope": "CANDIDATE", "kind": "ID", "id_map": n} for n in fields]
        + [{"name": f"hist_{n}", "scope": "SEQUENCE", "sequence": "hist", "kind": "ID", "id_map": n} for n in fields],
        "sequences": [{"name": "hist", "max_length": 50, "keep": "KEEP_LAST", "invalid": "DROP"}],
        "slots": [
            {"name": n, "embed": {"feature": n, "table": n.removeprefix("hist_")}}
            for n in users + fields + [f"hist_{f}" for f in fields]
        ],
        "attentions": [
            {
                "name": "att",
                "sequence": "hist",
                "query": fields,
                "key": [f"hist_{n}" for n in fields],
                "query_width": "QUERY_WIDTH_EQUAL",
                "input": ["Q", "K", "Q_MINUS_K", "Q_TIMES_K"],
                "layers": layers(attention),
                "out_bias": True,
                "out_activation": "NONE",
                "scale": "SCALE_NONE",
                "normalise": "NORMALISE_NONE",
                "empty": "EMPTY_ZERO",
            }
        ],
        "tower": {
            "input": [{"a": {"name": n}} for n in users + fields + ["att"]],
            "layers": layers(tower),
            "head_bias": True,
            "classes": 1,
        },
    }
    return _lines({"framework": {"name": "canonical"}, "spec": spec})


def _lines(description: dict[str, Any]) -> str:
    """One entry a line: thirty lines that a person can change."""
    out = ['{"framework": ' + json.dumps(description["framework"]) + ",", ' "spec": {']
    members = []
    for key, value in description["spec"].items():
        if isinstance(value, list) and len(value) > 1:
            rows = ",\n   ".join(json.dumps(v) for v in value)
            members.append(f'  "{key}": [\n   {rows}]')
        else:
            members.append(f'  "{key}": {json.dumps(value)}')
    return "\n".join(out) + "\n" + ",\n".join(members) + "\n }}\n"
