"""Raw cases of the frameworks that run: state, requests and scores are the framework's own."""
from __future__ import annotations

import json
import subprocess
import unittest
from typing import Any

from support import CASES, EXPORTERS, ExportTest, case_names, load

# DeepCTR-Torch masks this history by the length of another list, kw.
LENGTH_TRAP = "deepctr_torch_length_trap"
DOUBLING = 2


def key_lists(config: dict[str, Any], requests: list[dict[str, Any]]) -> int:
    """Behaviours in the longest request."""
    return max((len(v) for r in requests for v in r["sequences"].values()), default=0)


class CaseTest(ExportTest):
    def test_every_case_is_exported_and_verified(self) -> None:
        for name in case_names():
            with self.subTest(case=name):
                self.assert_exported(self.export_case(CASES / name, name))

    def test_the_framework_can_be_named(self) -> None:
        for name in ("fuxictr_pools", "recbole_a_default_mean"):
            result = self.export_case(CASES / name, name, name.partition("_")[0])
            self.assert_exported(result)

    def test_a_mask_by_another_lists_length_is_part_of_the_model(self) -> None:
        self.assert_exported(self.export_case(CASES / LENGTH_TRAP, "out"))
        sequence = load(self.dir / "out" / "model.json")["sequences"][0]
        self.assertEqual((sequence["length_of"], sequence["padded_length"]), ("kw", 10))

    def test_a_length_that_the_server_cannot_take_is_refused_by_name(self) -> None:
        refusals = [
            ({"length_features": {"seq_length": "hist_item_id", "kw_len": "user"}}, "column kw is pooled over"),
            ({"feature_scopes": {"kw": "candidate"}}, "length of kw, not by its own"),
            ({"padding": {"side": "pre", "pad_id": 0}}, "padding.side: pre"),
        ]
        for change, message in refusals:
            with self.subTest(message=message):
                case = self.copy_case(LENGTH_TRAP, message.partition(" ")[0])
                config = load(case / "config.json")
                for key, value in change.items():
                    config[key].update(value)
                (case / "config.json").write_text(json.dumps(config))
                self.assert_refused(self.export_case(case), message)

    def test_a_dry_run_maps_every_tensor_and_writes_nothing(self) -> None:
        for name in ("deepctr_torch_a_dice_nosoftmax", "recbole_a_default_mean"):
            case = CASES / name
            result = self.export(
                "auto",
                "--weights",
                case / "weights.safetensors",
                "--description",
                case / "config.json",
                "--golden",
                case,
                "--dry-run",
            )
            self.assertEqual({m["source"] for m in result["mapping"]}, set(load(case / "config.json")["state_dict"]))
            self.assertTrue(all(m["note"] for m in result["mapping"] if m["place"] == "-"))
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_a_reader_that_goes_away_is_no_error(self) -> None:
        case = CASES / "fuxictr_pools"
        files = f"--weights {case}/weights.safetensors --description {case}/config.json"
        command = f"{EXPORTERS}/din-export auto {files} --dry-run | head -1"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        self.assertEqual((len(done.stdout.splitlines()), done.stderr), (1, ""))

    def test_side_tables_may_come_from_a_file(self) -> None:
        case = self.copy_case("zhougr1993_a_sigmoid_transcription")
        inputs = load(case / "inputs.json")
        (self.dir / "side.json").write_text(json.dumps(inputs.pop("side_tables")))
        (case / "inputs.json").write_text(json.dumps(inputs))
        self.assert_refused(self.export_case(case), "side table cate_list", "--side-tables FILE")
        self.assert_exported(self.export_case(case, "out", "auto", "--side-tables", self.dir / "side.json"))

    def test_unverified_is_published_only_when_asked_for_and_says_so(self) -> None:
        case = CASES / "fuxictr_pools"
        arguments = (
            "auto",
            "--weights",
            case / "weights.safetensors",
            "--description",
            case / "config.json",
            "--out",
            self.dir / "out",
        )
        self.assert_refused(self.export(*arguments), "--golden DIR", "--unverified")
        self.assertFalse((self.dir / "out").exists())
        self.assertTrue(self.export(*arguments, "--unverified")["ok"])
        self.assertTrue(load(self.dir / "out" / "manifest.json")["unverified"])
        self.assertFalse((self.dir / "out" / "golden.jsonl").exists())


class TruncationBase(ExportTest):
    def export_cut(self, name: str, side: str, out: str) -> int:
        """Exports a case that keeps half of its longest history. Its golden requests are the case's own, with the scores
        that the exporter gives to their twins; returns how many behaviours are kept."""
        case = self.copy_case(name, f"case-{name}-{side}")
        config, inputs = load(case / "config.json"), load(case / "inputs.json")
        keep = max(1, key_lists(config, inputs["requests"]) // DOUBLING)
        config["truncation"] = {"side": side, "max_len": keep}
        (case / "config.json").write_text(json.dumps(config))
        twins = [
            {**r, "sequences": {k: cut(v, keep, side) for k, v in r["sequences"].items()}} for r in inputs["requests"]
        ]
        scores = {}
        for which, requests in (("cut", twins), ("long", inputs["requests"])):
            (case / "inputs.json").write_text(json.dumps({**inputs, "requests": requests}))
            scores[which] = self.scores(case)
        self.assertEqual(scores["long"], scores["cut"])
        expected = [{"id": r["id"], "scores": s} for r, s in zip(inputs["requests"], scores["cut"], strict=True)]
        (case / "expected.json").write_text(json.dumps({"requests": expected}))
        self.assert_exported(self.export_case(case, out))
        return keep

    def scores(self, case: Any) -> list[list[float]]:
        from din_export import frameworks
        from din_export.cli import convert
        from din_export.description import Description
        from din_export.evaluate import Evaluator
        from din_export.golden import golden_cases, load_inputs

        description, inputs = Description.load(str(case / "config.json")), load_inputs(str(case))
        c = convert(
            frameworks.identify(description), description, str(case / "weights.safetensors"), inputs.get("side_tables")
        )
        evaluator = Evaluator(c.model.finished(), c.model.tensors)
        return [evaluator.scores(g).tolist() for g in golden_cases(c.model.finished(), inputs, str(case))]


class TruncationTest(TruncationBase):
    """A request with more behaviours than are kept equals its twin that was cut by hand, for both sides."""

    def test_twins_of_every_case(self) -> None:
        for name in case_names():
            for side in ("pre", "post"):
                with self.subTest(case=name, side=side):
                    self.export_cut(name, side, f"out-{name}-{side}")


def cut(values: list[Any], keep: int, side: str) -> list[Any]:
    return values[-keep:] if side == "pre" else values[:keep]


if __name__ == "__main__":
    unittest.main()
