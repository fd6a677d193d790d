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


@unittest.skipUnless(SERVER and DINCTL, "needs din-server and dinctl")
class RpcTest(ExportTest):
    def setUp(self) -> None:
        super().setUp()
        self.root = self.dir / "models"
        for name in case_names():
            (self.root / name).mkdir(parents=True)
            self.assert_exported(self.export_case(CASES / name, f"models/{name}/1"))

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

    def test_every_case_scores_over_the_wire_as_in_its_framework(self) -> None:
        for instruction_set in instruction_sets():
            address = self.serve(instruction_set)
            for name in case_names():
                expected = {r["id"]: r["scores"] for r in load(CASES / name / "expected.json")["requests"]}
                for line in (self.root / name / "1" / "golden.jsonl").read_text().splitlines():
                    case = json.loads(line)
                    request = {k: case[k] for k in ("features", "sequences", "candidates") if k in case}
                    scores = self.score(address, {"model": name, **request})
                    with self.subTest(instruction_set=instruction_set, case=name, request=case["id"]):
                        self.assertEqual(len(scores), len(expected[case["id"]]))
                        for got, want in zip(scores, expected[case["id"]]):
                            self.assertLessEqual(abs(got - want), TOLERANCE)


if __name__ == "__main__":
    unittest.main()
