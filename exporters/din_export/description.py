"""The description file: the framework's own hyper-parameters and columns, as JSON."""
from __future__ import annotations

from typing import Any

from .errors import ExportError
from .strict_json import load_json

SCOPES = {
    "user": "USER",
    "context": "USER",
    "candidate": "CANDIDATE",
    "item": "CANDIDATE",
    "target": "CANDIDATE",
    "sequence": "SEQUENCE",
    "history": "SEQUENCE",
}
# `side` says where a list that is too long is cut, as in Keras; keep_first and keep_last say what is left.
KEEPS = {
    "pre": "KEEP_LAST",
    "left": "KEEP_LAST",
    "keep_last": "KEEP_LAST",
    "last": "KEEP_LAST",
    "post": "KEEP_FIRST",
    "right": "KEEP_FIRST",
    "keep_first": "KEEP_FIRST",
    "first": "KEEP_FIRST",
}

_KINDS = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def check_kind(where: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    """`value`, if it is of the kind; a bool is no integer, an integer is a float."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    fits = any(isinstance(value, k) and (k is bool or not isinstance(value, bool)) for k in kinds)
    if fits or (float in kinds and isinstance(value, int) and not isinstance(value, bool)):
        return value
    expected = " or ".join("null" if k is type(None) else _KINDS[k] for k in kinds)
    raise ExportError(f"description: {where}: {value!r} is not {expected}")


class Description:
    """Reads with defaults, and remembers what was read: the rest is reported."""

    def __init__(self, data: Any, path: str = "description") -> None:
        if not isinstance(data, dict):
            raise ExportError(f"{path}: not a JSON object")
        self.path, self.data = path, data
        self._asked: set[str] = set()
        self.hyperparameters: dict[str, Any] = check_kind("hyperparameters", data.get("hyperparameters", {}), dict)
        scopes = check_kind("feature_scopes", data.get("feature_scopes", {}), dict)
        self.scopes: dict[str, str] = {n: check_kind(f"feature_scopes.{n}", v, str) for n, v in scopes.items()}

    @classmethod
    def load(cls, path: str) -> "Description":
        return cls(load_json(path), path)

    @property
    def framework(self) -> dict[str, Any]:
        return check_kind("framework", self.data.get("framework", {}), dict)

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        """A top-level member; an error when it is not there and has no default."""
        if key not in self.data or (self.data[key] is None and default is not ...):
            if default is ...:
                raise ExportError(f"description: {key} is missing")
            return default
        return check_kind(key, self.data[key], kind)

    def hyper(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        """A hyper-parameter, or the framework's own default."""
        self._asked.add(key)
        if key not in self.hyperparameters:
            if default is ...:
                raise ExportError(f"description: hyperparameters.{key} is missing, and the framework has no default")
            return default
        return check_kind(f"hyperparameters.{key}", self.hyperparameters[key], kind)

    def units(self, key: str, default: list[int]) -> list[int]:
        """A hyper-parameter that lists the sizes of layers."""
        units = self.hyper(key, list, default)
        for u in units:
            if check_kind(f"hyperparameters.{key}", u, int) < 1:
                raise ExportError(f"description: hyperparameters.{key}: a layer of {u} units")
        return list(units)

    def unread(self, harmless: set[str]) -> list[str]:
        """Hyper-parameters that nobody asked for and that are not known to change nothing."""
        return sorted(k for k in self.hyperparameters if k not in self._asked and k not in harmless)

    def scope(self, feature: str, implied: str | None = None) -> str:
        """USER, CANDIDATE or SEQUENCE; `implied` is what the feature's use says, and what is said must agree."""
        if feature not in self.scopes:
            if implied is not None:
                return implied
            raise ExportError(
                f"description: feature_scopes.{feature} is missing; say whether requests carry it once "
                "(user), per candidate (candidate) or per behaviour (sequence)"
            )
        text = self.scopes[feature]
        word = text.replace("(", " ").replace(",", " ").split()
        if not word or word[0].lower() not in SCOPES:
            raise ExportError(
                f"description: feature_scopes.{feature}: {text!r}; accepted: user, context, candidate, sequence"
            )
        scope = SCOPES[word[0].lower()]
        if implied is not None and scope != implied:
            raise ExportError(
                f"description: feature_scopes.{feature}: {text!r}, but its use in the network makes it "
                f"{implied.lower()}"
            )
        return scope

    def features_of(self, scope: str) -> list[str]:
        return [name for name in self.scopes if self.scope(name) == scope]

    def truncation(self) -> tuple[str | None, int | None]:
        """(keep, max_len) where the description says them."""
        cut = self.get("truncation", dict, {})
        for key in cut:
            if key not in ("side", "max_len"):
                raise ExportError(f"description: truncation.{key} is not known; accepted: side, max_len")
        keep, max_len = None, cut.get("max_len")
        if cut.get("side") is not None:
            side = str(cut["side"]).lower().replace("-", "_")
            if side not in KEEPS:
                raise ExportError(
                    f"description: truncation.side: {cut['side']!r}; accepted: {', '.join(KEEPS)} (pre cuts "
                    "the beginning and keeps the last)"
                )
            keep = KEEPS[side]
        if max_len is not None and check_kind("truncation.max_len", max_len, int) < 1:
            raise ExportError(f"description: truncation.max_len: {max_len} < 1")
        return keep, max_len

    def padding(self) -> tuple[str, int]:
        """(side, id) of padding."""
        padding = self.get("padding", dict, {})
        side = padding.get("side", "post")
        if side not in ("post", "pre"):
            raise ExportError(f"description: padding.side: {side!r}; accepted: post, pre")
        return side, check_kind("padding.pad_id", padding.get("pad_id", 0), int)

    def require_padding_behind(self) -> None:
        """For frameworks that mask by length: the first positions count, whatever stands there."""
        if self.padding()[0] == "pre":
            raise ExportError(
                "description: padding.side: pre, but this framework masks by length, so that the first positions of a "
                "history count, sent or padded; accepted: post"
            )
