"""The exporter's numpy against the C++ server over random models of the family. DIN_PROPERTY_SEEDS says how many."""
from __future__ import annotations

import os
import subprocess
import unittest

from random_models import RandomModel
from support import DINCTL, ExportTest

from din_export.evaluate import Evaluator
from din_export.snapshot import SnapshotWriter

FIRST_SEED = 1
SEEDS = int(os.environ.get("DIN_PROPERTY_SEEDS", "24"))


@unittest.skipUnless(DINCTL, "DIN_DINCTL does not name a dinctl")
class PropertyTest(ExportTest):
    def test_numpy_and_the_server_agree_on_random_models(self) -> None:
        print(f"seeds {FIRST_SEED} to {FIRST_SEED + SEEDS - 1}")
        for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
            with self.subTest(seed=seed):
                self.check(seed)

    def check(self, seed: int) -> None:
        model = RandomModel(seed)
        evaluator = Evaluator(model.spec, model.tensors)
        cases = [model.case(n) for n in (0, 1, 3, 9)]
        for case in cases:
            case["scores"] = evaluator.scores(case).tolist()
        writer = SnapshotWriter(str(self.dir / f"seed{seed}"))
        writer.write_model(model.spec, model.tensors, lambda *_: None)
        writer.write_golden(cases)
        writer.seal(unverified=False)
        writer.publish()
        done = subprocess.run([DINCTL, "verify", writer.directory], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, f"seed {seed}: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    unittest.main()
