"""What a framework's module works on, and the parts that several of them need."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .checkpoint import Checkpoint
from .description import Description
from .errors import ExportError
from .layers import LEAKY_DEFAULT, NONE, PRELU, RELU, SIGMOID, SILU, TANH, Activation
from .model import Model

SideTables = dict[str, Any]


@dataclass
class Conversion:
    description: Description
    checkpoint: Checkpoint
    model: Model
    side_tables: SideTables | None = None
    warnings: list[str] = field(default_factory=list)

    def sequence(self, name: str, max_length: int, keep: str, fixed: bool = True, **more: Any) -> str:
        """A behaviour list with the description's truncation, or the framework's. `fixed`: it has a padded length that
        no request may exceed."""
        said_keep, said_length = self.description.truncation()
        if fixed and said_length is not None and said_length > max_length:
            raise ExportError(
                f"description: truncation.max_len: {said_length} > {max_length}, the length that the "
                "network's inputs have"
            )
        return self.model.sequence(name, said_length or max_length, said_keep or keep, **more)

    def list_keep(self, keep: str) -> str:
        """The side that an id list outside the history keeps."""
        return self.description.truncation()[0] or keep

    def column(self, name: str, why: str) -> list[Any]:
        """A side table, from --side-tables or the golden inputs."""
        if self.side_tables is None or name not in self.side_tables:
            have = ", ".join(self.side_tables) if self.side_tables else "none"
            raise ExportError(
                f"side table {name}: missing ({why}); there are: {have}; give --side-tables FILE with "
                f'{{"{name}": [...]}}, one entry per id from 0'
            )
        values = self.side_tables[name]
        if not isinstance(values, list) or not values:
            raise ExportError(f"side table {name}: not a list of values, one per id from 0")
        return values


def activations_for(names: Any, count: int, parse: Any, where: str) -> list[Activation]:
    """One activation per layer from one name for all or a list of them."""
    listed = names if isinstance(names, list) else [names] * count
    if len(listed) != count:
        raise ExportError(f"description: {where}: {len(listed)} activations for {count} layers")
    return [parse(name, where) for name in listed]


# torch.nn classes that are in the family, by lower-case name.
_TORCH_CLASSES = {
    "relu": RELU,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "prelu": PRELU,
    "silu": SILU,
    "swish": SILU,
    "leakyrelu": LEAKY_DEFAULT,
    "leaky_relu": LEAKY_DEFAULT,
    "identity": NONE,
    "linear": NONE,
}


def torch_activation(name: Any, where: str, own: dict[str, Activation]) -> Activation:
    """An activation by name: `own` has what the framework defines itself, such as its Dice."""
    if name is None or name == "":
        return NONE
    key = str(name).removeprefix("torch.").removeprefix("nn.").lower()
    accepted = {**_TORCH_CLASSES, **own}
    if key not in accepted:
        raise ExportError(
            f"description: {where}: activation {name!r} is outside the family; accepted: "
            f"{', '.join(sorted(accepted))}"
        )
    return accepted[key]


def check_integers(values: list[Any], size: int, what: str) -> list[int]:
    for i, value in enumerate(values):
        if not isinstance(value, (int, float)) or int(value) != value:
            raise ExportError(f"{what}[{i}]: {value!r} is not an id")
        if not 0 <= value < size:
            raise ExportError(f"{what}[{i}]: id {int(value)} is not in [0, {size}), the rows of its table")
    return [int(v) for v in values]
