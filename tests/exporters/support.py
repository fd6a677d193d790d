"""What the tests share: running din-export, writing small inputs, asking dinctl."""
from __future__ import annotations

import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
EXPORTERS = HERE.parent.parent / "exporters"
CASES = HERE / "cases"
DINCTL = os.environ.get("DIN_DINCTL", "")  # CMake gives the path; "" where it is not built

sys.path.insert(0, str(EXPORTERS))

from din_export import cli  # noqa: E402


def case_names() -> list[str]:
    return sorted(p.name for p in CASES.iterdir() if p.is_dir())


def load(path: pathlib.Path) -> Any:
    return json.loads(path.read_text())


def write_safetensors(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    types = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "uint16": "BF16"}
    header, offset, blobs = {}, 0, []
    for name, values in tensors.items():
        data = np.ascontiguousarray(values).tobytes()
        header[name] = {
            "dtype": types[str(values.dtype)],
            "shape": list(values.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
        blobs.append(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    from din_export.containers import safetensors

    return {name: tensor.read() for name, tensor in safetensors.read(str(path)).items()}


class ExportTest(unittest.TestCase):
    """A scratch directory, and din-export in this process."""

    def setUp(self) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self._scratch.cleanup)
        self.dir = pathlib.Path(self._scratch.name)

    def export(self, *arguments: Any) -> dict[str, Any]:
        """The result that --json prints."""
        import contextlib
        import io

        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = cli.main([*map(str, arguments), "--json"])
        result = json.loads(out.getvalue())
        self.assertEqual(result.get("exit_code", 0), code)
        return result

    def copy_case(self, name: str, to: str = "case") -> pathlib.Path:
        """A case whose files may be changed."""
        target = self.dir / to
        target.mkdir()
        for file in (CASES / name).iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        return target

    def export_case(
        self, directory: pathlib.Path, out: str = "out", framework: str = "auto", *more: Any
    ) -> dict[str, Any]:
        return self.export(
            framework,
            "--weights",
            directory / "weights.safetensors",
            "--description",
            directory / "config.json",
            "--golden",
            directory,
            "--out",
            self.dir / out,
            *more,
        )

    def write_case(self, case: Any, to: str = "case") -> pathlib.Path:
        """A transcriptions.Case."""
        target = self.dir / to
        target.mkdir()
        (target / "config.json").write_text(json.dumps(case.config))
        inputs = {"requests": case.requests, **({"side_tables": case.side_tables} if case.side_tables else {})}
        (target / "inputs.json").write_text(json.dumps(inputs))
        expected = [{"id": r["id"], "scores": s} for r, s in zip(case.requests, case.scores, strict=True)]
        (target / "expected.json").write_text(json.dumps({"requests": expected}))
        write_safetensors(target / "weights.safetensors", case.tensors)
        return target

    def assert_exported(self, result: dict[str, Any], limit: float = 1e-5) -> None:
        self.assertTrue(result["ok"], result.get("error"))
        self.assertLessEqual(result["golden"]["largest_error"], limit)
        if DINCTL:
            done = subprocess.run([DINCTL, "verify", result["out"]], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def assert_refused(self, result: dict[str, Any], *words: str) -> None:
        self.assertFalse(result["ok"])
        for word in words:
            self.assertIn(word, result["error"])
        self.assertNotIn("internal:", result["error"])
        self.assertNotIn("Traceback", result["error"])
