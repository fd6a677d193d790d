"""The frameworks' own requests, asked of a live din-server that serves what din-export made of their models."""
from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time
import unittest

from support import CASES, DINCTL, ExportTest, case_names, load
from test_cases import TruncationBase, cut

SERVER = os.environ.get("DIN_PROGRAM_SERVER", "")
TOLERANCE = 1e-5


def instruction_sets() -> list[str]:
    flags = pathlib.Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    sets = ["baseline"]
    if "avx2" in flags:
        sets.append("avx2")
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        sets.append("avx512")
    return sets


class ServedTest(ExportTest):
    """A din-server over what the test put under `root`, <model>/<version>."""

    def setUp(self) -> None:
        super().setUp()
        self.root = self.dir / "models"
        self.root.mkdir()

    def serve(self, instruction_set: str) -> str:
        """The address of a server that is ready."""
        ports = self.dir / f"ports-{instruction_set}"
        log = (self.dir / f"log-{instruction_set}").open("w")
        self.addCleanup(log.close)
        server = subprocess.Popen(
            [SERVER, "--model-root", self.root, "--listen", "127.0.0.1:0", "--port-file", ports]
            + ["--instruction-set", instruction_set, "--drain-delay", "0s"],
            stderr=log,
        )

        def stop() -> None:
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(30), 0)

        self.addCleanup(stop)
        for _ in range(600):
            if ports.exists() and ports.read_text().strip():
                return f"127.0.0.1:{ports.read_text().split()[0]}"
            self.assertIsNone(server.poll(), pathlib.Path(log.name).read_text())
            time.sleep(0.05)
        self.fail("din-server was not ready within 30 s")

    def score(self, address: str, request: dict[str, object]) -> list[float]:
        """In the order of the request."""
        run = subprocess.run(
            [DINCTL, "score", "-", "--server", address, "--json"], input=json.dumps(request), capture_output=True, text=True
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        answer = json.loads(run.stdout)
        by_index = dict(zip(answer["index"], answer["scores"]))
        return [by_index[i] for i in range(len(by_index))]

    def requests(self, directory: pathlib.Path) -> dict[str, dict[str, object]]:
        """Id -> the golden request of a snapshot, in the wire's form."""
        cases = [json.loads(line) for line in (directory / "golden.jsonl").read_text().splitlines()]
        return {c["id"]: {k: c[k] for k in ("features", "sequences", "candidates") if k in c} for c in cases}


@unittest.skipUnless(SERVER and DINCTL, "needs din-server and dinctl")
class RpcTest(ServedTest):
    def test_every_case_scores_over_the_wire_as_in_its_framework(self) -> None:
        for name in case_names():
            (self.root / name).mkdir()
            self.assert_exported(self.export_case(CASES / name, f"models/{name}/1"))
        for instruction_set in instruction_sets():
            address = self.serve(instruction_set)
            for name in case_names():
                expected = {r["id"]: r["scores"] for r in load(CASES / name / "expected.json")["requests"]}
                for request_id, request in self.requests(self.root / name / "1").items():
                    scores = self.score(address, {"model": name, **request})
                    with self.subTest(instruction_set=instruction_set, case=name, request=request_id):
                        self.assertEqual(len(scores), len(expected[request_id]))
                        for got, want in zip(scores, expected[request_id]):
                            self.assertLessEqual(abs(got - want), TOLERANCE)


@unittest.skipUnless(SERVER and DINCTL, "needs din-server and dinctl")
class RpcTruncationTest(ServedTest, TruncationBase):
    """A request with more behaviours than are kept, and its twin that was cut by hand, over the wire."""

    def test_twins_of_every_case_score_the_same(self) -> None:
        kept = {}  # model -> (side, behaviours kept)
        for name in case_names():
            for side in ("pre", "post"):
                model = f"{name}-{side}"
                (self.root / model).mkdir()
                kept[model] = side, self.export_cut(name, side, f"models/{model}/1")
        for instruction_set in instruction_sets():
            address = self.serve(instruction_set)
            for model, (side, keep) in kept.items():
                whole = max(self.requests(self.root / model / "1").values(), key=lambda r: len(json.dumps(r)))
                self.assertGreater(behaviours(whole), keep)
                twin = {**whole, "sequences": [cut_sequence(s, keep, side) for s in whole["sequences"]]}
                with self.subTest(instruction_set=instruction_set, model=model):
                    scores = [self.score(address, {"model": model, **r}) for r in (whole, twin)]
                    self.assertEqual(scores[0], scores[1])


def behaviours(request: dict[str, object]) -> int:
    return max(len(c.get("ids", [])) for s in request["sequences"] for c in s["columns"])


def cut_sequence(sequence: dict[str, object], keep: int, side: str) -> dict[str, object]:
    """Every column of the cases' sequences has ids, or numbers of one width."""
    rows, columns = max(len(c.get("ids", [])) for c in sequence["columns"]), []
    for column in sequence["columns"]:
        kind = "values" if "values" in column else "ids"
        width = max(1, len(column[kind]) // max(1, rows))
        columns.append({**column, kind: cut(column[kind], keep * width, side)})
    return {**sequence, "columns": columns}


if __name__ == "__main__":
    unittest.main()
