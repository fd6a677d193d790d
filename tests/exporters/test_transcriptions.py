"""Frameworks that do not run here, against their transcribed graphs."""
from __future__ import annotations

import unittest

import numpy as np
import transcriptions
from support import ExportTest

from din_export.hashing import farmhash64


class TranscriptionTest(ExportTest):
    def test_every_transcribed_graph_gives_its_scores(self) -> None:
        for i, (name, make) in enumerate(transcriptions.ALL.items()):
            for seed in (1, 2):
                with self.subTest(name=name, seed=seed):
                    directory = self.write_case(make(seed), f"case{i}-{seed}")
                    self.assert_exported(self.export_case(directory, f"out{i}-{seed}"))

    def test_hashed_columns_find_the_same_rows(self) -> None:
        """Raw ids whose FarmHash falls on the rows of the unhashed case; where 0 is masked, id 0 stays row 0."""
        case = transcriptions.deepctr(3, True, True, False)
        rng = np.random.default_rng(1)
        known: dict[tuple[int, int, bool], int] = {}

        def raw(row: int, size: int, skip_zero: bool) -> int:
            key = (row, size, skip_zero)
            while key not in known:
                value = 0 if skip_zero and row == 0 else int(rng.integers(-(2**62), 2**62))
                found = farmhash64(str(value).encode())
                if value == 0 or row == (found % (size - 1) + 1 if skip_zero else found % size):
                    known[key] = value
            return known[key]

        for column in [c for c in case.config["feature_columns"] if c["type"] != "DenseFeat"]:
            column["use_hash"] = True
            name, size = column["name"], column["vocabulary_size"]
            skip_zero = column["type"] == "VarLenSparseFeat" or name in ("item_id", "cate_id")
            for r in case.requests:
                for box in [b for b in (r["features"], r["sequences"], *r["candidates"]) if name in b]:
                    ids = box[name] if isinstance(box[name], list) else [box[name]]
                    mapped = [raw(i, size, skip_zero) for i in ids]
                    box[name] = mapped if isinstance(box[name], list) else mapped[0]
        self.assert_exported(self.export_case(self.write_case(case)))


if __name__ == "__main__":
    unittest.main()
