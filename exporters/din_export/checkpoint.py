"""The framework's tensors while they are handed out: every one is used, or ignored for a reason, or an error."""
from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from .errors import ExportError
from .tensors import FLOATS, Tensor, as_float32, equal

WRAPPERS = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, a module that holds the model


@dataclass
class Mapping:
    """One row of the mapping table."""

    source: str
    shape: list[int]
    place: str  # in the snapshot; "-" for what is ignored
    note: str = ""


class Checkpoint:
    def __init__(self, tensors: dict[str, Tensor], path: str) -> None:
        self.path = path
        self.wrapper, self.tensors = _normalised(tensors)
        self.mappings: list[Mapping] = []
        self._seen: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def names(self, prefix: str = "") -> list[str]:
        return [n for n in self.tensors if n.startswith(prefix)]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def take(self, name: str, shape: tuple[int, ...], place: str, why: str, note: str = "") -> Tensor:
        """The tensor; it has floats of this shape. `why` says where the expectation comes from."""
        own = self.wrapper + name  # as the file has it
        if name not in self.tensors:
            near = difflib.get_close_matches(name, [n for n in self.tensors if n not in self._seen], 2, 0.8)
            hint = f"; is it {' or '.join(self.wrapper + n for n in near)}?" if near else ""
            raise ExportError(f"tensor {own}: missing, expected {list(shape)} ({why}){hint}")
        tensor = self.tensors[name]
        if tensor.shape != tuple(shape):
            raise ExportError(f"tensor {own}: {tensor.describe()}, expected {list(shape)} ({why})")
        if tensor.dtype not in FLOATS:
            raise ExportError(f"tensor {own}: type {tensor.dtype}, expected {', '.join(FLOATS)}")
        self._seen.add(name)
        self.mappings.append(Mapping(own, list(tensor.shape), place, note))
        return as_float32(tensor)

    def ignore(self, name: str, reason: str) -> None:
        if name not in self._seen:
            self._seen.add(name)
            self.mappings.append(Mapping(self.wrapper + name, list(self.tensors[name].shape), "-", reason))

    def ignore_matching(self, pattern: str, reason: str) -> None:
        for name in self.tensors:
            if re.search(pattern, name):
                self.ignore(name, reason)

    def one_of(self, names: list[str], why: str) -> str:
        """The name under which a shared table was saved. Where several are there, they must be one tensor."""
        found = [n for n in names if n in self.tensors]
        if not found:
            raise ExportError(f"tensor {names[0]}: missing ({why}); looked for {', '.join(names)}")
        for other in found[1:]:
            if not equal(self.tensors[found[0]], self.tensors[other]):
                raise ExportError(f"tensors {found[0]} and {other} differ, but {why}")
            self.ignore(other, f"the same tensor as {found[0]}")
        return found[0]

    def check_all_used(self) -> None:
        extra = [n for n in self.tensors if n not in self._seen]
        if not extra:
            return
        shown = ", ".join(f"{self.wrapper}{n} {list(self.tensors[n].shape)}" for n in extra[:8])
        more = f" and {len(extra) - 8} more" if len(extra) > 8 else ""
        raise ExportError(
            f"{len(extra)} tensors that the description does not account for: {shown}{more}; either the "
            "description leaves a layer or a feature out, or these are weights of another model"
        )


def _normalised(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """(what wrappers put in front of every name, the tensors without it and without TensorFlow's ":0")."""
    wrapper, out = "", {}
    while more := next((w for w in WRAPPERS if tensors and all(n.startswith(wrapper + w) for n in tensors)), ""):
        wrapper += more
    for name, tensor in tensors.items():
        plain = re.sub(r":0$", "", name[len(wrapper) :])
        if plain in out:
            raise ExportError(f"tensor {plain}: there twice, as {plain} and {name}")
        out[plain] = tensor
    return wrapper, out
