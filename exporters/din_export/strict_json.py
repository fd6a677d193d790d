"""JSON as people mean it: no key twice, no NaN."""
from __future__ import annotations

import json
from typing import Any

from .errors import ExportError


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"the key {key!r} is there twice in one object")
        out[key] = value
    return out


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def parse_json(text: str) -> Any:
    """Raises ValueError with the reason."""
    return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)


def load_json(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ExportError(f"{path}: not UTF-8 ({error})") from error
    try:
        return parse_json(text)
    except ValueError as error:
        raise ExportError(f"{path}: not JSON: {error}") from error
