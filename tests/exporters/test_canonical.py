"""One's own PyTorch code: the template, torch's spelling of names, vocabularies, and a table that is larger than memory
should be."""
from __future__ import annotations

import json
import subprocess
import sys
import unittest
from typing import Any

import numpy as np

from support import EXPORTERS, ExportTest, write_safetensors

from din_export.evaluate import Evaluator
from din_export.expected import expected_tensors
from din_export.hashing import farmhash64, xxh64
from din_export.template import template
from din_export.tensors import ArrayTensor

ROWS = {"item": 30, "cate": 5, "user": 7}
DIM, ATT, TOWER = 4, [6, 3], [8]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


class CanonicalTest(ExportTest):
    def model(self) -> dict[str, np.ndarray]:
        """A plain DIN's state_dict, spelled as torch modules spell it."""
        rng = np.random.default_rng(1)
        draw = lambda *shape: rng.normal(0, 0.5, shape).astype(np.float32)
        state = {f"table.{n}.weight": draw(r, DIM) for n, r in ROWS.items()}
        sizes = {"att0": [4 * 2 * DIM, *ATT], "tower": [5 * DIM, *TOWER]}
        for prefix, units in sizes.items():
            for i, (n_in, n_out) in enumerate(zip(units, units[1:])):
                state[f"{prefix}.l{i}.weight"], state[f"{prefix}.l{i}.bias"] = draw(n_out, n_in), draw(n_out)
        state["att0.out.weight"], state["att0.out.bias"] = draw(1, ATT[-1]), draw(1)
        state["head.weight"], state["head.bias"] = draw(1, TOWER[-1]), draw(1)
        return state

    def score(self, s: dict[str, np.ndarray], user: int, hist: list[tuple[int, int]], item: int, cate: int) -> float:
        embed = lambda i, c: np.concatenate([s["table.item.weight"][i], s["table.cate.weight"][c]]).astype(float)
        q, att = embed(item, cate), np.zeros(2 * DIM)
        for i, c in hist:
            k = embed(i, c)
            x = np.concatenate([q, k, q - k, q * k])
            for n in range(len(ATT)):
                x = relu(s[f"att0.l{n}.weight"] @ x + s[f"att0.l{n}.bias"])
            att += (s["att0.out.weight"] @ x + s["att0.out.bias"])[0] * k
        x = np.concatenate([s["table.user.weight"][user], q, att])
        x = relu(s["tower.l0.weight"] @ x + s["tower.l0.bias"])
        return float(1 / (1 + np.exp(-(s["head.weight"] @ x + s["head.bias"])[0])))

    def files(self, description: dict[str, Any], state: dict[str, np.ndarray]) -> None:
        requests, expected = [], []
        for r, hist in enumerate(([], [(3, 1)], [(3, 1), (9, 4), (29, 0)])):
            cands = [(5, 2), (29, 4)]
            requests.append(
                {
                    "id": str(r),
                    "features": {"user": 6},
                    "sequences": {"hist_item": [i for i, _ in hist], "hist_cate": [c for _, c in hist]},
                    "candidates": [{"item": i, "cate": c} for i, c in cands],
                }
            )
            expected.append({"id": str(r), "scores": [self.score(state, 6, hist, i, c) for i, c in cands]})
        (self.dir / "config.json").write_text(json.dumps(description))
        (self.dir / "inputs.json").write_text(json.dumps({"requests": requests}))
        (self.dir / "expected.json").write_text(json.dumps({"requests": expected}))
        write_safetensors(self.dir / "weights.safetensors", state)

    def test_the_template_and_a_state_dict_make_a_snapshot(self) -> None:
        text = template(DIM, ATT, TOWER, ROWS)
        self.assertLessEqual(len(text.splitlines()), 40)
        self.files(json.loads(text), self.model())
        self.assert_exported(self.export_case(self.dir))

    def test_a_tensor_that_the_spec_does_not_expect_is_named(self) -> None:
        state = self.model()
        state["tower.l1.weight"] = np.zeros((3, 8), np.float32)
        self.files(json.loads(template(DIM, ATT, TOWER, ROWS)), state)
        self.assert_refused(self.export_case(self.dir), "tower.l1.weight [3, 8]")

    def test_ids_may_go_through_a_vocabulary(self) -> None:
        description, state = json.loads(template(DIM, ATT, TOWER, ROWS)), self.model()
        users = next(m for m in description["spec"]["id_maps"] if m["name"] == "user")
        del users["identity"]
        users.update(id_type="STRING", vocabulary={"first_row": 0})
        description["vocabularies"] = {"user": [f"user-{i}" for i in range(7)]}
        self.files(description, state)
        inputs = json.loads((self.dir / "inputs.json").read_text())
        for r in inputs["requests"]:
            r["features"]["user"] = "user-6"
        (self.dir / "inputs.json").write_text(json.dumps(inputs))
        self.assert_exported(self.export_case(self.dir))

    def test_no_description_at_all_is_refused_with_the_template(self) -> None:
        self.files({"framework": {"name": "canonical"}}, self.model())
        self.assert_refused(self.export_case(self.dir), '"spec"', "--template")


class PaperModelsTest(ExportTest):
    """docs/models: LR, BaseModel, Wide & Deep, PNN, DeepFM and DIN."""

    def test_each_model_of_the_paper_is_exported(self) -> None:
        models = sorted((EXPORTERS.parent / "docs" / "models").glob("*.json"))
        self.assertEqual(len(models), 6)
        for path in models:
            with self.subTest(model=path.stem):
                self.check(path.stem, json.loads(path.read_text()))

    def check(self, name: str, spec: dict[str, Any]) -> None:
        rng, case = np.random.default_rng(3), self.dir / name
        case.mkdir()
        state = {e.name: rng.normal(0, 0.4, e.shape).astype(np.float32) for e in expected_tensors(spec)}
        state.update({n: np.abs(v) for n, v in state.items() if n.endswith(".var")})
        cross = {"user_x_cate": "7_1"} if name == "wide_deep" else {}
        request = {
            "id": "r",
            "features": {"user": 7},
            "sequences": {"hist_item": [3, 12, 12], "hist_cate": [1, 0, 0]},
            "candidates": [{"item": 3, "cate": 1, **cross}, {"item": 29, "cate": 4, **cross}],
        }
        ids = lambda column, *values: {"name": column, "ids": list(values)}
        golden = {
            "id": "r",
            "features": [ids("user", 7)],
            "sequences": [{"name": "hist", "columns": [ids("hist_item", 3, 12, 12), ids("hist_cate", 1, 0, 0)]}],
            "candidates": [ids("item", 3, 29), ids("cate", 1, 4)]
            + [{"name": k, "keys": [v, v]} for k, v in cross.items()],
            "scores": [0, 0],
        }
        scores = Evaluator(spec, {n: ArrayTensor(v) for n, v in state.items()}).scores(golden).tolist()
        (case / "config.json").write_text(json.dumps({"framework": {"name": "canonical"}, "spec": spec}))
        (case / "inputs.json").write_text(json.dumps({"requests": [request]}))
        (case / "expected.json").write_text(json.dumps({"requests": [{"id": "r", "scores": scores}]}))
        write_safetensors(case / "weights.safetensors", state)
        self.assert_exported(self.export_case(case, f"{name}.out"))


class StreamingTest(ExportTest):
    MEBIBYTES = 192

    def test_a_large_table_is_never_in_memory(self) -> None:
        rows = self.MEBIBYTES * (1 << 20) // (4 * 64)
        description = json.loads(template(64, [4], [4], {"item": rows}))
        shapes = {
            "table.item": (rows, 64),
            "att0.l0.w": (4, 256),
            "att0.l0.b": (4,),
            "att0.out.w": (1, 4),
            "att0.out.b": (1,),
            "tower.l0.w": (4, 128),
            "tower.l0.b": (4,),
            "head.w": (1, 4),
            "head.b": (1,),
        }
        self.sparse_file(shapes)
        (self.dir / "config.json").write_text(json.dumps(description))
        request = {
            "id": "r",
            "features": {},
            "sequences": {"hist_item": [1, rows - 1]},
            "candidates": [{"item": rows - 1}],
        }
        (self.dir / "inputs.json").write_text(json.dumps({"requests": [request]}))
        (self.dir / "expected.json").write_text(json.dumps({"requests": [{"id": "r", "scores": [0.5]}]}))
        np.savez(self.dir / "weights.npz", **{n: np.zeros(shape, np.float32) for n, shape in shapes.items()})
        for weights in ("weights.safetensors", "weights.npz"):
            with self.subTest(weights=weights):
                self.assertLess(self.peak_mebibytes(weights), 1.2 * self.MEBIBYTES)

    def peak_mebibytes(self, weights: str) -> int:
        """Of a process of its own, by the kernel's account."""
        script = (
            f"import sys; sys.path.insert(0, {str(EXPORTERS)!r})\n"
            "from din_export import cli\n"
            "code = cli.main(sys.argv[1:])\n"
            "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])\n"
            "sys.exit(code)"
        )
        arguments = ["auto", "--weights", self.dir / weights, "--description", self.dir / "config.json"]
        arguments += ["--golden", self.dir, "--out", self.dir / f"out-{weights}"]
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return int(done.stdout.split()[-1]) >> 10

    def sparse_file(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Zeros that take no room on disk."""
        import struct

        header, offset = {}, 0
        for name, shape in shapes.items():
            size = 4 * int(np.prod(shape))
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header).encode()
        with open(self.dir / "weights.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + offset)


class HashTest(unittest.TestCase):
    def test_published_values(self) -> None:
        self.assertEqual(xxh64(b""), 0xEF46DB3751D8E999)
        self.assertEqual(xxh64(b"abc"), 0x44BC2CF5AD770999)
        self.assertEqual(farmhash64(b""), 0x9AE16A3B2F90404F)
        # BigQuery's documentation of FARM_FINGERPRINT, as signed integers.
        for text, value in (
            (b"1footrue", -1541654101129638711),
            (b"2applefalse", 2794438866806483259),
            (b"3true", -4880158226897771312),
        ):
            self.assertEqual(farmhash64(text), value % (1 << 64))


if __name__ == "__main__":
    unittest.main()
