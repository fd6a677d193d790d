"""The command line: reads, converts, verifies, publishes; one line of result, or one of reason."""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from types import ModuleType
from typing import Any

from . import frameworks
from .checkpoint import Checkpoint
from .containers import read_weights
from .conversion import Conversion
from .description import Description
from .errors import ExportError, GoldenError
from .expected import expected_tensors
from .golden import Case, golden_cases, load_inputs, load_side_tables
from .model import Model
from .snapshot import SnapshotWriter
from .template import template
from .tensors import LARGE_BYTES
from .verify import Verified, verify

EXIT_CODES = "exit codes: 0 published; 1 refused, with the reason; 2 wrong use; 3 the golden scores are not reproduced"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="din-export",
        description="A DIN model of another framework becomes a dinserve snapshot that "
        "gives the framework's own scores, or is refused with the reason.",
        epilog=EXIT_CODES,
    )
    p.add_argument(
        "framework",
        nargs="?",
        metavar="FRAMEWORK",
        help="auto (by the description's framework.repo, then framework.name), or one of --list",
    )
    p.add_argument("--weights", metavar="FILE", help=".safetensors, .npz, .pt or .pth (a state_dict), .h5 (Keras 2)")
    p.add_argument("--description", metavar="FILE", help="JSON: hyper-parameters, feature columns, scopes (README.md)")
    p.add_argument(
        "--golden", metavar="DIR", help="inputs.json and expected.json: the framework's own requests and scores"
    )
    p.add_argument(
        "--side-tables", metavar="FILE", help="JSON: what the graph looks up from an id, one list per column"
    )
    p.add_argument("--out", metavar="DIR", help="the snapshot's directory, which must not be there yet")
    p.add_argument("--unverified", action="store_true", help="publish without golden scores; the manifest says so")
    p.add_argument(
        "--dinctl", metavar="PATH", help="also let `dinctl verify` judge the snapshot before it is published"
    )
    p.add_argument("--dry-run", action="store_true", help="print the mapping table tensor -> place, write nothing")
    p.add_argument("--json", action="store_true", help="print the result, or the error, as one JSON object")
    p.add_argument("--list", action="store_true", help="print the frameworks and what is refused")
    p.add_argument("--template", action="store_true", help="canonical: print a description for the sizes below")
    p.add_argument("--dim", type=int, default=16, help="--template: width of an embedding")
    p.add_argument("--att-units", type=_sizes, default=[80, 40], help="--template: such as 80,40")
    p.add_argument("--tower-units", type=_sizes, default=[200, 80], help="--template: such as 200,80")
    p.add_argument(
        "--rows",
        type=_rows,
        default={"item": 1000, "cate": 20, "user": 500},
        help="--template: such as item=1000,cate=20,user=500",
    )
    return p


def _sizes(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def _rows(text: str) -> dict[str, int]:
    return {name: int(rows) for name, rows in (entry.split("=") for entry in text.split(","))}


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        if args.list:
            print(listing())
            return 0
        if args.template:
            print(template(args.dim, args.att_units, args.tower_units, args.rows), end="")
            return 0
        missing = [f for f in ("framework", "weights", "description") if getattr(args, f) is None]
        if not args.dry_run and args.out is None:
            missing.append("out")
        if missing:
            parser().error(f"missing: {', '.join(m if m == 'framework' else '--' + m for m in missing)}")
        result = run(args)
    except ExportError as error:
        code = 3 if isinstance(error, GoldenError) else 1
        _report({"ok": False, "error": str(error), "exit_code": code}, args.json)
        return code
    except KeyboardInterrupt:
        _report({"ok": False, "error": "interrupted; nothing was published", "exit_code": 130}, args.json)
        return 130
    except (OSError, MemoryError) as error:
        _report({"ok": False, "error": f"{type(error).__name__}: {error}", "exit_code": 1}, args.json)
        return 1
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Nothing is published; what was not foreseen is most often a member of the wrong kind.
        _report({"ok": False, "error": _unforeseen(error), "exit_code": 1}, args.json)
        return 1
    _report(result, args.json)
    return 0


def _unforeseen(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{type(error).__name__}: {error} (at {os.path.basename(frame.filename)}:{frame.lineno}): the description or "
        "the inputs have a form that was not foreseen; compare with the example in exporters/README.md"
    )


def _report(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    if not result["ok"]:
        print(f"din-export: {result['error']}", file=sys.stderr)
        return
    for warning in result["warnings"]:
        print(f"din-export: warning: {warning}", file=sys.stderr)
    if "mapping" in result:
        print(_table(result["mapping"]))
    print(result["text"])


def listing() -> str:
    lines = ["supported:"]
    for m in frameworks.MODULES:
        lines.append(f"  {m.NAME:15} {m.REPO or 'your own PyTorch code, with a ModelSpec as description'}")
        lines.append(f"  {'':15} also called {', '.join(m.ALIASES)}")
    lines += ["refused:"] + [f"  {name}: {reason}" for name, reason in frameworks.REFUSED.items()]
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> str:
    sources = [f"{r['source']} {r['shape']}" for r in rows]
    width = max(map(len, sources), default=0)
    return "\n".join(
        f"{s:{width}} -> {r['place']}{'  (' + r['note'] + ')' if r['note'] else ''}" for s, r in zip(sources, rows)
    )


# --- The export ---------------------------------------------------------------------------------------------------


def convert(
    module: ModuleType, description: Description, weights: str, side_tables: dict[str, Any] | None
) -> Conversion:
    framework = description.framework
    origin = ", ".join(str(framework[k]) for k in ("name", "repo", "commit") if framework.get(k)) or module.NAME
    c = Conversion(description, Checkpoint(read_weights(weights), weights), Model(origin), side_tables)
    module.convert(c)
    c.checkpoint.check_all_used()
    _check_described_shapes(c)
    _check_complete(c)
    for name in description.scopes:
        if c.model.named("features", name) is None:
            c.warnings.append(
                f"description: feature_scopes.{name}: the network does not read it, requests do not carry it"
            )
    for name in description.unread(module.HARMLESS):
        c.warnings.append(f"description: hyperparameters.{name} is not known to this exporter and had no effect")
    return c


def _check_described_shapes(c: Conversion) -> None:
    """A description may list the state_dict; then it must be the one of these weights."""
    for given, shape in c.description.get("state_dict", dict, {}).items():
        name = given.removeprefix(c.checkpoint.wrapper)
        if name in c.checkpoint and list(c.checkpoint.shape(name)) != list(shape):
            raise ExportError(
                f"tensor {name}: {list(c.checkpoint.shape(name))}, but the description's state_dict says {shape}; "
                "weights and description are of different models"
            )


def _check_complete(c: Conversion) -> None:
    """The exporter's own consistency: the tensors are exactly those that the spec asks for."""
    wanted = {e.name: e for e in expected_tensors(c.model.spec)}
    for name, tensor in c.model.tensors.items():
        if name not in wanted:
            raise ExportError(f"internal: {name} is in no place of the spec")
    for name, e in wanted.items():
        tensor = c.model.tensors.get(name)
        if tensor is None:
            raise ExportError(f"internal: {name} is missing ({e.why})")
        fits = len(tensor.shape) == len(e.shape) and all(
            w in (-1, s) or (e.kind == "table" and i == 0 and s >= w)
            for i, (s, w) in enumerate(zip(tensor.shape, e.shape))
        )
        if not fits and not (e.kind == "alpha" and tensor.shape == (1,)):
            raise ExportError(f"internal: {name}: {tensor.describe()}, expected {list(e.shape)} ({e.why})")


def run(args: argparse.Namespace) -> dict[str, Any]:
    begin = time.monotonic()
    description = Description.load(args.description)
    module = frameworks.choose(args.framework, description)
    inputs = load_inputs(args.golden) if args.golden else {}
    side_tables = load_side_tables(args.side_tables) if args.side_tables else inputs.get("side_tables")
    if not args.golden and not args.unverified and not args.dry_run:
        raise ExportError(
            "no golden scores: give --golden DIR with the framework's own requests and scores (README.md shows how to "
            "dump them), or publish with --unverified, which the manifest will say"
        )
    c = convert(module, description, args.weights, side_tables)
    spec = c.model.finished()
    cases = golden_cases(spec, inputs, args.golden) if args.golden else []
    result: dict[str, Any] = {
        "ok": True,
        "framework": module.NAME,
        "warnings": c.warnings,
        "mapping": [vars(m) for m in c.checkpoint.mappings],
    }
    if args.dry_run:
        return {**result, "text": f"{module.NAME}: {len(c.model.tensors)} tensors; nothing written (--dry-run)"}
    verified, digest = publish(args, c, spec, cases)
    used = sum(1 for m in c.checkpoint.mappings if m.place != "-")
    text = f"{args.out}: {module.NAME}, {used} tensors used, {len(c.checkpoint.mappings) - used} ignored"
    text += (
        f"; {verified.cases} golden requests, {verified.scores} scores, largest difference {verified.largest_error:.2g}"
        if verified
        else "; UNVERIFIED: no golden scores"
    )
    if not args.json:
        del result["mapping"]
    return {
        **result,
        "out": os.path.abspath(args.out),
        "digest": digest,
        "seconds": round(time.monotonic() - begin, 3),
        "golden": vars(verified) if verified else None,
        "text": text,
    }


def publish(
    args: argparse.Namespace, c: Conversion, spec: dict[str, Any], cases: list[Case]
) -> tuple[Verified | None, str]:
    writer = SnapshotWriter(args.out)
    try:
        writer.write_model(spec, c.model.tensors, Progress())
        verified = verify(writer.temporary, cases) if cases else None
        if cases:
            writer.write_golden(cases)
        digest = writer.seal(unverified=not cases)
        if args.dinctl and cases:
            judge(args.dinctl, writer.temporary)
        writer.publish()
    except BaseException:
        writer.discard()
        raise
    return verified, digest


def judge(dinctl: str, directory: str) -> None:
    try:
        done = subprocess.run([dinctl, "verify", directory], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ExportError(f"--dinctl {dinctl}: {error.strerror}") from error
    if done.returncode != 0:
        raise ExportError(f"dinctl verify refuses the snapshot: {(done.stderr or done.stdout).strip()}")


class Progress:
    """A bar on a terminal, for weights that take a while."""

    def __init__(self) -> None:
        self._shown = -1

    def __call__(self, name: str, done: int, total: int) -> None:
        if total < LARGE_BYTES or not sys.stderr.isatty():
            return
        percent = 100 * done // total
        if percent != self._shown:
            self._shown = percent
            bar = "#" * (percent * 30 // 100)
            end = "\n" if done == total else ""
            print(
                f"\r[{bar:30}] {percent:3}% {done >> 20} of {total >> 20} MiB  {name[:40]:40}",
                end=end,
                file=sys.stderr,
                flush=True,
            )
