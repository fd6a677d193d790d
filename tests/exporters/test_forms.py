"""Other spellings of the same: names that wrappers make, links to repositories, lists in place of objects."""
from __future__ import annotations

import json
import pathlib
import unittest
from typing import Any

import numpy as np

import test_refusals
import transcriptions
from support import CASES, ExportTest, load, read_safetensors, write_safetensors

from din_export import frameworks
from din_export.description import Description

TZREC = "tzrec_two_groups_dice_bn_classes"


class FormTest(ExportTest):
    def edited(self, name: str, **members: Any) -> pathlib.Path:
        """A case whose description has other members; hyperparameters are merged."""
        case = self.copy_case(name, f"{name}-{len(list(self.dir.iterdir()))}")
        config = load(case / "config.json")
        config["hyperparameters"].update(members.pop("hyperparameters", {}))
        config.update(members)
        (case / "config.json").write_text(json.dumps(config))
        return case

    def test_names_that_wrappers_put_in_front_are_the_files_own(self) -> None:
        for wrapper in ("module.", "model.", "_orig_mod.module."):
            case = self.copy_case("rechub_softmax", wrapper)
            tensors = read_safetensors(case / "weights.safetensors")
            write_safetensors(case / "weights.safetensors", {wrapper + n: v for n, v in tensors.items()})
            result = self.export_case(case, f"out-{wrapper}")
            self.assert_exported(result)
            del tensors["mlp.mlp.0.weight"]
            write_safetensors(case / "weights.safetensors", {wrapper + n: v for n, v in tensors.items()})
            self.assert_refused(self.export_case(case, f"less-{wrapper}"), "mlp.mlp")

    def test_a_torch_file_may_have_any_name(self) -> None:
        state = read_safetensors(CASES / "fuxictr_pools" / "weights.safetensors")
        for name in ("DIN.model", "pytorch_model.bin", "step.ckpt"):
            (self.dir / name).write_bytes(test_refusals.ContainerTest.pt(self, state))
            case = CASES / "fuxictr_pools"
            arguments = ["--description", case / "config.json", "--golden", case, "--out", self.dir / f"out-{name}"]
            self.assert_exported(self.export("auto", "--weights", self.dir / name, *arguments))

    def test_a_repository_may_be_a_link_with_a_commit_or_a_folder(self) -> None:
        for repo, name in (
            ("https://github.com/shenweichen/DeepCTR-Torch.git", "deepctr-torch"),
            ("git@github.com:shenweichen/DeepCTR", "deepctr"),
            ("reczoo/FuxiCTR@0245987", "fuxictr"),
            ("alibaba/x-deeplearning/xdl-algorithm-solution/DIN", "x-deeplearning"),
            ("https://github.com/PaddlePaddle/PaddleRec/tree/master/models/rank/din", "paddlerec"),
        ):
            module = frameworks.identify(Description({"framework": {"repo": repo}}))
            self.assertEqual(module.NAME, name)
        for repo in ("https://github.com/wzhe06/SparrowRecSys", "NVIDIA-Merlin/HugeCTR/samples/din"):
            result = self.export_case(self.edited("rechub_softmax", framework={"repo": repo}))
            self.assert_refused(result, repo)

    def test_towers_may_be_lists_that_name_their_group(self) -> None:
        config = load(CASES / TZREC / "config.json")
        hyper, groups = config["hyperparameters"], config["feature_groups"]
        towers = [g for g in groups if "." not in g]
        dins = list(dict.fromkeys(g.rpartition(".")[0] for g in groups if "." in g))

        def of(key: str, group: str, index: int) -> Any:
            value = hyper[key]
            return value[index] if isinstance(value, list) else value.get(group, value)

        lists = {
            "tower_mlp": [{"input": g, "mlp": of("tower_mlp", g, i)} for i, g in enumerate(towers)][::-1],
            "attn_mlp": [{"input": g, "attn_mlp": of("attn_mlp", g, i)} for i, g in enumerate(dins)][::-1],
        }
        self.assert_exported(self.export_case(self.edited(TZREC, hyperparameters=lists)))

    def test_fuxictr_shares_only_with_a_feature_before(self) -> None:
        case = self.copy_case("fuxictr_a_dice_nosoftmax")
        config = load(case / "config.json")
        sharing = {n: s for n, s in config["feature_map"].items() if "share_embedding" in s}
        others = {n: s for n, s in config["feature_map"].items() if n not in sharing}
        # The histories first: FuxiCTR makes tables of their own for them.
        config["feature_map"] = {**sharing, **others}
        (case / "config.json").write_text(json.dumps(config))
        result = self.export_case(case)
        self.assertEqual(result["exit_code"], 3)  # the same scores would need the tower's old order
        self.assertNotIn("share_embedding", result["error"])
        tables = {t["source"] for t in self.mapping(case) if t["place"].startswith("table.")}
        self.assertIn("embedding_layer.embedding_layers.click_history.weight", tables)
        self.assertIn("embedding_layer.embedding_layers.item_id.weight", tables)

    def mapping(self, case: pathlib.Path) -> list[dict[str, Any]]:
        arguments = ["--weights", case / "weights.safetensors", "--description", case / "config.json", "--dry-run"]
        return self.export("auto", *arguments)["mapping"]

    def test_fuxictrs_own_list_of_features(self) -> None:
        config = load(CASES / "fuxictr_pools" / "config.json")
        for form in (
            {"features": [{n: s} for n, s in config["feature_map"].items()]},
            [{"name": n, **s} for n, s in config["feature_map"].items()],
        ):
            case = self.edited("fuxictr_pools", feature_map=form)
            self.assert_exported(self.export_case(case, f"out-{type(form).__name__}"))

    def test_padding_in_front_is_refused_where_lengths_are_the_mask(self) -> None:
        padding = {"side": "pre", "pad_id": 0}
        for name in ("deepctr_torch_a_dice_nosoftmax", "recbole_sum", "zhougr1993_a_sigmoid_transcription"):
            self.assert_refused(self.export_case(self.edited(name, padding=padding)), "padding.side: pre")
        for name in ("rechub_softmax", "deepctr_tf_a_dice_idmask_transcription"):  # no mask, or one by id
            self.assert_exported(self.export_case(self.edited(name, padding=padding), f"out-{name}"))

    def test_a_length_feature_is_no_input_of_deepctrs_tower(self) -> None:
        name = "deepctr_tf_a_dice_idmask_transcription"
        scopes = load(CASES / name / "config.json")["feature_scopes"]
        members = {
            "feature_scopes": {**scopes, "seq_length": "user"},
            "length_features": {"seq_length": "hist_item_id"},
        }
        self.assert_exported(self.export_case(self.edited(name, **members)))

    def test_a_pool_over_another_lists_length_is_refused(self) -> None:
        case = transcriptions.deepctr(1, False, False, False)
        for column in case.config["feature_columns"]:
            if column["type"] == "VarLenSparseFeat":
                column["length_name"] = "seq_length"
        self.assert_refused(
            self.export_case(self.write_case(case)), "column tags is pooled over the length of hist_item_id (seq_length)"
        )

    def test_the_activation_of_rechubs_tower_is_dice(self) -> None:
        params = load(CASES / "rechub_softmax" / "config.json")["hyperparameters"]["mlp_params"]
        case = self.edited("rechub_softmax", hyperparameters={"mlp_params": {**params, "activation": "dice"}})
        self.assert_exported(self.export_case(case))
        case = self.edited("rechub_softmax", hyperparameters={"mlp_params": {**params, "activation": "relu"}})
        self.assert_refused(self.export_case(case, "relu"), "mlp_params.activation: 'relu'", "dice")

    def test_frozen_statistics_in_other_spellings(self) -> None:
        frozen = transcriptions.dien(1, 0).config["frozen_statistics"]
        layers = {n: s for n, s in frozen.items() if n != "padded_length"}
        deviations = {
            n: {"mean": s["mean"], "std": np.sqrt(np.array(s["var"]) + 1e-9).tolist()} for n, s in layers.items()
        }
        for i, members in enumerate(({"frozen_stats": layers}, {"dice_statistics": deviations})):
            case = transcriptions.dien(1, 0)
            del case.config["frozen_statistics"]
            case.config.update(members)
            self.assert_exported(self.export_case(self.write_case(case, f"case{i}"), f"out{i}"))
        case = transcriptions.dien(1, 0)
        del case.config["frozen_statistics"]["dice_2"]["var"]
        self.assert_refused(self.export_case(self.write_case(case, "less"), "less"), "dice_2.var: missing, expected 6")

    def test_a_padded_history_is_no_longer_than_the_batch_was(self) -> None:
        case = transcriptions.dien(1, 9)
        case.requests[2]["sequences"] = {k: [5] * 7 + v[-2:] + v[2:] for k, v in case.requests[2]["sequences"].items()}
        cut = transcriptions.dien(1, 9)
        cut.requests[2]["sequences"] = {k: v[-9:] for k, v in case.requests[2]["sequences"].items()}
        results = [self.export_case(self.write_case(c, n), f"out-{n}") for c, n in ((case, "long"), (cut, "cut"))]
        self.assertEqual(results[0]["exit_code"], 3)  # not the recorded history: both miss its scores, by the same
        self.assertEqual(*[r["error"].partition(": ")[2] for r in results])


if __name__ == "__main__":
    unittest.main()
