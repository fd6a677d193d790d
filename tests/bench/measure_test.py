#!/usr/bin/python3
"""bench/measure.sh and publish.py: every figure has its place in the documents, and only that is replaced."""
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEERS = """    bench/measure.sh peers

A CPU, 2 cores; commit abc, 2030-01-02

Microseconds a request; threads: 1.

| B x H | dinserve fp32 | dinserve bf16 | libtorch tiled | ORT tiled | ORT split | ORT per candidate |
|---|---|---|---|---|---|---|
| paper 1 x 50 | 1 ± 0 | 1 ± 0 | 1 ± 0 | 1 ± 0 | 1 ± 0 | 1 ± 0 |
| paper 200 x 100 | 2500 ± 11 | 1400 ± 2 | 41306 ± 9 | 16457 ± 89 | 4431 ± 28 | 4557 ± 36 |

| B x H | best ORT by hand / dinserve bf16 | largest difference of dinserve bf16 |
|---|---|---|
| paper 1 x 50 | 1.0 | 1e-03 |
| paper 200 x 100 | 3.2 | 7.9e-04 |
"""


class MeasureTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        self.measured = self.root / "measured"
        for folder in ("docs", "measured"):
            (self.root / folder).mkdir()
        for document in ("README.md", "docs/benchmarks.md"):
            shutil.copy(ROOT / document, self.root / document)
        self.before = self.text("docs/benchmarks.md")

    def text(self, document):
        return (self.root / document).read_text(encoding="utf-8")

    def publish(self, *steps):
        return subprocess.run([ROOT / "bench" / "publish.py", self.measured, self.root, *steps],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)

    def test_every_step_has_its_place(self):
        script = (ROOT / "bench" / "measure.sh").read_text(encoding="utf-8")
        steps = re.search("^all='(.*)'$", script, re.MULTILINE)[1].split()
        for step in steps:
            (self.measured / f"{step}.md").write_text(f"figures of {step}\n" if step != "peers" else PEERS)
        ran = self.publish(*steps)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        blocks = re.findall(r"<!-- measured: ([^ ]+) -->\n(.*?)<!-- end -->", self.text("docs/benchmarks.md"), re.DOTALL)
        self.assertCountEqual([name for name, _ in blocks], steps)
        for name, text in blocks:
            self.assertEqual(text, f"figures of {name}\n" if name != "peers" else PEERS)

    def test_what_was_not_measured_stays_and_pictures_come_along(self):
        (self.measured / "curve.md").write_text("![a curve](curve.svg)\n")
        (self.measured / "curve.svg").write_text("<svg/>")
        self.assertIn("stages: not measured", self.publish("stages", "curve").stdout)
        self.assertTrue((self.root / "docs" / "curve.svg").exists())
        place = re.compile("<!-- measured: curve -->.*?<!-- end -->", re.DOTALL)
        self.assertEqual(place.sub("", self.text("docs/benchmarks.md")), place.sub("", self.before))

    def test_the_readme_gets_the_row_of_its_shape(self):
        (self.measured / "peers.md").write_text(PEERS)
        self.assertEqual(self.publish("peers").returncode, 0)
        self.assertIn("| **2,500** | **1,400** | 16,457 | 4,431 | 41,306 |", self.text("README.md"))
        self.assertIn("A CPU, 2 cores; commit abc, 2030-01-02", self.text("README.md"))
        self.assertIn("within 1e-5, in bf16 within 7.9e-04.", self.text("README.md"))

    def test_a_quick_run_is_not_published(self):
        (self.measured / "curve.md").write_text("2030-01-02 **Quick: no measurement.**\n")
        ran = self.publish("curve")
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn("of a quick run", ran.stderr)
        self.assertEqual(self.text("docs/benchmarks.md"), self.before)


if __name__ == "__main__":
    unittest.main()
