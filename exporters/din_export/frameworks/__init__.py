"""The frameworks: by name, by repository, by alias. What stays out is refused by name, with the reason."""
from __future__ import annotations

import re
from types import ModuleType

from ..description import Description
from ..errors import ExportError
from . import canonical, deepctr, deepctr_torch, dien, fuxictr, paddlerec, recbole, rechub, tzrec, xdl, zhougr1993

MODULES: tuple[ModuleType, ...] = (
    deepctr_torch,
    fuxictr,
    rechub,
    recbole,
    tzrec,
    zhougr1993,
    deepctr,
    paddlerec,
    dien,
    xdl,
    canonical,
)

# Repository or name -> why not.
REFUSED = {
    "alibaba/EasyRec": "EasyRec's TensorFlow DIN is not exported; write its weights in the canonical naming",
    "NVIDIA-Merlin/HugeCTR": "its Dice takes the batch's mean and variance at inference and saves no statistics",
    "wzhe06/SparrowRecSys": "its PReLU has a slope per (position, unit): a score depends on the behaviours' order",
    "UlionTse/mlgb": "its attention takes the outer product of query and key and pools over the embedding axis",
    "MultiWindowDIN": "MultiWindowDIN feeds window means through a PReLU unit, which is another network than DIN",
    "yeyingdege/ctr-din-pytorch": "it feeds a mask where lengths are expected; its Dice takes the batch's statistics",
    "ruiyli/DIN_PyTorch": "it feeds a mask where lengths are expected; its Dice takes the batch's statistics",
    "GitHub-HongweiZhang/prediction-flow": "not exported; write its weights in the canonical naming",
    "massquantity/LibRecommender": "not exported; write its weights in the canonical naming",
    "ustcml/RecStudio": "not exported; write its weights in the canonical naming",
    "QunBB/DeepLearning": "not exported; write its weights in the canonical naming",
    "fanoping/DIN-pytorch": "not exported; write its weights in the canonical naming",
}


def plain(name: str) -> str:
    """Without case, punctuation and what stands in parentheses."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\(.*?\)", "", name.lower()))


def by_name(name: str) -> ModuleType | None:
    for module in MODULES:
        if plain(name) in {plain(a) for a in (module.NAME, module.REPO, *module.ALIASES) if a}:
            return module
    return None


def repositories(text: str) -> set[str]:
    """Every owner/name that may be meant: of "https://github.com/owner/name.git@commit" or "owner/name/a/folder"."""
    parts = [re.sub(r"(\.git)?([@#\s].*)?$", "", p) for p in re.split(r"[/:]", text.strip().lower())]
    return {f"{owner}/{name}" for owner, name in zip(parts, parts[1:])}


def by_repository(repo: str) -> ModuleType | None:
    meant = repositories(repo)
    return next((m for m in MODULES if m.REPO.lower() in meant), None)


def refuse(name: str) -> None:
    for known, reason in REFUSED.items():
        if name and (
            plain(name) in (plain(known), plain(known.split("/")[-1])) or known.lower() in repositories(name)
        ):
            raise ExportError(f"{name}: {reason}")


def identify(description: Description) -> ModuleType:
    """What the description's `framework` says: first its repository, then its name."""
    framework = description.framework
    repo, name = str(framework.get("repo", "")), str(framework.get("name", ""))
    entry = str(framework.get("entry", ""))
    for text in (repo, name):
        refuse(text)
    if "MultiWindowDIN" in entry + name:
        refuse("MultiWindowDIN")
    module = by_repository(repo) or by_name(name)
    if module is None and ("spec" in description.data or "tower" in description.data):
        return canonical
    if module is None:
        raise ExportError(
            f"description: framework: neither repo {repo!r} nor name {name!r} is known; accepted: "
            + ", ".join(m.NAME for m in MODULES)
        )
    return module


def choose(name: str, description: Description) -> ModuleType:
    """The module for the command line's FRAMEWORK; it must not contradict the description."""
    if name == "auto":
        return identify(description)
    refuse(name)
    module = by_name(name)
    if module is None:
        raise ExportError(f"framework {name!r} is not known; accepted: auto, {', '.join(m.NAME for m in MODULES)}")
    if description.framework.get("repo") or description.framework.get("name"):
        said = identify(description)
        if said is not module:
            raise ExportError(
                f"FRAMEWORK is {name}, but the description is of {said.NAME} "
                f"({description.framework.get('repo') or description.framework.get('name')})"
            )
    return module
