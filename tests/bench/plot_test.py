#!/usr/bin/python3
"""bench/scaling/plot.py: what it draws is well-formed, holds every point, and the tables say the same."""
import json
import pathlib
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

PLOT = pathlib.Path(__file__).resolve().parents[2] / "bench" / "scaling" / "plot.py"
SVG = "{http://www.w3.org/2000/svg}"


class PlotTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def plot(self, *arguments):
        return subprocess.run([str(PLOT), *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True).stdout

    def circles(self, name):
        root = xml.etree.ElementTree.parse(self.directory / name).getroot()
        return [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter(SVG + "circle")]

    def test_scaling_draws_every_point_and_prints_it(self):
        for name in ("pairs", "models"):
            (self.directory / f"{name}.csv").write_text("paper, B x 100,10000,1500\npaper, B x 100,1000000,150000\n")
        (self.directory / "rows.csv").write_text("whole,10000,7\nwhole,1e8,9\nlook-up,10000,1\n")
        (self.directory / "memory.csv").write_text(
            "seconds, vocabulary,1e6,0.2\nseconds, vocabulary,3e6,0.6\n"
            "resident MB, vocabulary,1e6,140\nresident MB, vocabulary,3e6,420\n")
        text = self.plot("scaling", self.directory, self.directory)
        self.assertIn("| 10⁸ | 9 |  |", text)
        self.assertIn("140 MB per million rows", text)
        self.assertEqual(len(self.circles("scaling-rows.svg")), 3)
        (x0, y0), (x1, y1) = self.circles("scaling-pairs.svg")
        self.assertLess(x0, x1)
        self.assertGreater(y0, y1)  # pixels count downwards

    def test_small_tells_what_a_request_takes_beyond_its_kernels(self):
        times = {"score/m/1x50/avx2": [9, 8, 10], "kernels/m/1x50/avx2": [7, 7, 8], "parse/m/1x50/avx2": [0.5],
                 "decode/m/1x50/avx2": [0.25], "rank/m/1x50/avx2": [0.125], "encode/m/1x50/avx2": [0.25]}
        entries = [{"name": name, "run_type": "iteration", "family_index": f, "cpu_time": us}
                   for f, (name, all_us) in enumerate(times.items()) for us in all_us]
        entries.append({"name": "score/m/1x50/avx2_median", "run_type": "aggregate", "family_index": 0, "cpu_time": 99})
        report = {"context": {"instruction set": "avx2"}, "benchmarks": entries}
        (self.directory / "report.json").write_text(json.dumps(report))
        self.assertIn("| m 1 x 50, fp32 | 9.00 ± 1.00 | 7.00 ± 0.50 | 2.00 ± 1.50 | 0.50 | 0.25 | 0.12 | 0.25 | 3.12 |",
                      self.plot("small", self.directory / "report.json"))

    def test_sweep_leaves_out_runs_that_are_not_valid(self):
        latency = {"p50": 900, "p90": 2000, "p99": 4000, "p999": 9000}
        report = {"runs": [{"valid": v, "offered_rate": r, "latency_us": latency}
                           for v, r in ((True, 100), (True, 200), (False, 400))],
                  "requests": {"mean_candidates": 50, "mean_behaviours": 50}, "load": {"arrivals": "poisson"},
                  "machine": {"cores": 2}}
        (self.directory / "report.json").write_text(json.dumps(report))
        self.plot("sweep", self.directory / "report.json", self.directory / "curve.svg")
        self.assertEqual(len(self.circles("curve.svg")), 2 * 4)

    def test_a_sweep_without_a_valid_run_is_no_curve(self):
        (self.directory / "report.json").write_text(json.dumps({"runs": [{"valid": False}]}))
        ran = subprocess.run([str(PLOT), "sweep", self.directory / "report.json", self.directory / "curve.svg"],
                             stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(ran.returncode, 3)
        self.assertIn("no run is valid", ran.stderr)


if __name__ == "__main__":
    unittest.main()
