#!/usr/bin/python3
"""bench/compare: its intervals hold what they promise, and its verdicts say what is so. No time is judged here: the
benches are stand-ins whose times are drawn at random, or are run only to see that they run.

  compare_test.py            intervals and verdicts
  compare_test.py --real DIR the benches built in DIR against themselves
  compare_test.py --commits  HEAD against itself, built twice over by the script
"""
import importlib.machinery
import importlib.util
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPARE = ROOT / "bench" / "compare"
SEED = 3

loader = importlib.machinery.SourceFileLoader("compare", str(COMPARE))
compare = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare", loader))
sys.dont_write_bytecode = True
loader.exec_module(compare)

# Writes what Google Benchmark would; each run draws a new time around the one that the benchmark has.
STAND_IN = """#!/usr/bin/python3
import json, random, sys
flags = dict(a.split("=", 1) for a in sys.argv[1:])
entries = []
for name, us in {times}.items():
    entry = dict(name=name, run_type="iteration", time_unit="us")
    if us is None:
        entry.update(error_occurred=True, error_message="differs from the reference")
    else:
        us *= random.lognormvariate(0, {noise})
        entry.update(cpu_time=us, real_time=2 * us)
    entries.append(entry)
open(flags["--benchmark_out"], "w").write(json.dumps(dict(benchmarks=entries)))
sys.exit(1 if None in {times}.values() else 0)
"""


def run(*arguments):
    return subprocess.run([str(COMPARE), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False)


class IntervalTest(unittest.TestCase):
    def test_holds_the_median_as_often_as_promised(self):
        lots = random.Random(SEED)
        for n, confidence in [(6, 0.95), (15, 0.95), (15, 0.9975), (40, 0.9)]:
            trials = 4000
            # Far from normal: a tail of slow rounds, as on a shared machine. Its median is 1.
            held = 0
            for _ in range(trials):
                low, high = compare.median_interval([math.exp(lots.expovariate(1) - math.log(2)) for _ in range(n)],
                                                    confidence)
                held += low <= 1 <= high
            # Four standard deviations of the count.
            slack = 4 * math.sqrt(trials * confidence * (1 - confidence))
            self.assertGreaterEqual(held, trials * confidence - slack, f"n {n}, {confidence}, seed {SEED}")

    def test_leaves_out_as_many_as_the_binomial_allows(self):
        values = list(range(1, 16))
        self.assertEqual(compare.median_interval(values, 0.95), (4, 12))
        self.assertEqual(compare.median_interval(values[::-1], 0.95), (4, 12))

    def test_too_few_rounds_have_none(self):
        self.assertIsNone(compare.median_interval([1, 1, 1, 1, 1], 0.95))
        self.assertIsNotNone(compare.median_interval([1, 1, 1, 1, 1, 1], 0.95))
        self.assertEqual(compare.rounds_needed(0.95), 6)


class VerdictTest(unittest.TestCase):
    def test_says_only_what_the_whole_interval_says(self):
        for interval, word in [((1.03, 1.05), "slower"), ((1.01, 1.05), "unclear"), ((0.99, 1.01), "same"),
                               ((0.9, 0.97), "faster"), ((0.9, 0.99), "unclear"), ((0.5, 2), "unclear"),
                               (None, "unclear")]:
            self.assertEqual(compare.verdict(interval, 0.02), word, interval)


class ProgramTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)

    def benches(self, name, times, noise=0.002):
        directory = pathlib.Path(self.directory.name) / name
        directory.mkdir()
        for bench in compare.BENCHES:
            file = directory / bench
            file.write_text(STAND_IN.format(times=times if bench == "model_bench" else {}, noise=noise))
            file.chmod(0o755)
        return directory

    def report(self, base, change, *arguments):
        out = pathlib.Path(self.directory.name) / "report.json"
        done = run(base, change, "--json", out, *arguments)
        rows = json.loads(out.read_text())["benchmarks"] if out.exists() else []
        return done, {row["name"]: row["verdict"] for row in rows}

    def test_tells_slower_faster_and_same_apart(self):
        base = self.benches("base", {"a": 100, "b": 100, "c": 100, "gone": 1})
        change = self.benches("change", {"a": 110, "b": 90, "c": 100, "new": 1})
        done, verdicts = self.report(base, change)
        self.assertEqual(verdicts, {"a": "slower", "b": "faster", "c": "same"}, done.stdout + done.stderr)
        self.assertEqual(done.returncode, 1)
        self.assertIn("only in base: gone", done.stdout)
        self.assertIn("only in change: new", done.stdout)

    def test_the_same_is_never_called_slower_or_faster(self):
        same = self.benches("same", {f"b{i}": 10 + i for i in range(20)}, noise=0.1)
        done, verdicts = self.report(same, same)
        self.assertEqual(set(verdicts.values()) - {"same", "unclear"}, set(), done.stdout)
        self.assertEqual(done.returncode, 0)

    def test_two_rounds_tell_nothing_and_say_so(self):
        done, verdicts = self.report(self.benches("base", {"a": 100}), self.benches("change", {"a": 200}),
                                     "--rounds", 2)
        self.assertEqual(verdicts, {"a": "unclear"})
        self.assertEqual(done.returncode, 0)
        self.assertIn("2 rounds are too few", done.stdout)

    def test_a_wrong_result_fails_whatever_its_speed(self):
        done, verdicts = self.report(self.benches("base", {"a": 100}), self.benches("change", {"a": None}))
        self.assertEqual(verdicts, {"a": "wrong"}, done.stderr)
        self.assertEqual(done.returncode, 1)

    def test_bad_arguments_name_what_is_wrong(self):
        base = self.benches("base", {"a": 100})
        for arguments, message, code in [(("no-such-commit", base), '"no-such-commit" is neither', 3),
                                         ((base, base, "--rounds", 0), "must be positive", 2),
                                         ((base, base, "--filter", "("), "--filter", 2),
                                         ((base, base, "--tolerance", "2"), "not a share", 2)]:
            done = run(*arguments)
            self.assertIn(message, done.stderr)
            self.assertEqual(done.returncode, code)

    def test_nothing_in_common_is_no_success(self):
        done = run(self.benches("base", {"a": 1}), self.benches("change", {"b": 1}))
        self.assertEqual(done.returncode, 3)
        self.assertIn("no benchmark of both", done.stderr)


def check_run(*arguments):
    done = run(*arguments, "--filter", "(score|attention)/compact/1x50/", "--rounds", 2, "--min-time", 0.001)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    if done.returncode != 0 or "unclear" not in done.stdout:
        sys.exit("a bench against itself did not run as it should")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--real"]:
        check_run(sys.argv[2], sys.argv[2])
    elif sys.argv[1:] == ["--commits"]:
        if subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, check=False).returncode != 0:
            print("not a git repository: skipped")
            sys.exit(77)
        with tempfile.TemporaryDirectory() as cache:
            check_run("HEAD", "HEAD", "--bench", "kernel_bench", "--cache", cache)
    else:
        unittest.main()
