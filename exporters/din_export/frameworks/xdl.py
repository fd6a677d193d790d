"""alibaba/x-deeplearning @ a710108, xdl-algorithm-solution/DIN: as dien, with bn1 in training mode at inference and one
valid token of id 0 after every history, which requests then have to carry."""
from __future__ import annotations

from ..conversion import Conversion
from .dien import HARMLESS as DIEN_HARMLESS
from .dien import Dien

NAME = "x-deeplearning"
REPO = "alibaba/x-deeplearning"
ALIASES = ("x-deeplearning", "xdl", "x-deeplearning DIN")
HARMLESS = DIEN_HARMLESS


def convert(c: Conversion) -> None:
    Dien(c, needs_bn=True).run()
    c.warnings.append(
        "x-deeplearning's reader puts one valid id 0 after every history: requests to this snapshot must end "
        "their histories with it"
    )
