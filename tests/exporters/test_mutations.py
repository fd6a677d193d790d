"""A wrong knob is caught: in the description by the command, in the spec by the golden scores."""
from __future__ import annotations

import json
import unittest
from typing import Any

from support import CASES, ExportTest, case_names, load

from din_export import frameworks
from din_export.cli import convert
from din_export.description import Description
from din_export.evaluate import Evaluator
from din_export.golden import golden_cases, load_inputs
from din_export.verify import difference, variations

LIMIT = 1e-5

# Case -> wrong descriptions: (path, value). Each must be refused, by the golden scores or before.
WRONG: dict[str, list[tuple[tuple[Any, ...], Any]]] = {
    "deepctr_torch_a_dice_nosoftmax": [
        (("hyperparameters", "att_weight_normalization"), True),
        (("hyperparameters", "att_activation"), "sigmoid"),
        (("hyperparameters", "dnn_activation"), "sigmoid"),
        (("hyperparameters", "dnn_activation"), "linear"),
        (("hyperparameters", "dnn_use_bn"), True),
        (("hyperparameters", "history_feature_list"), ["item_id"]),
        (("feature_columns", 8, "combiner"), "sum"),
        (("feature_columns", 8, "combiner"), "max"),
        (("feature_columns", 6, "embedding_name"), "hist_item_id"),
        (("hyperparameters", "dnn_hidden_units"), [32, 8]),
        (("feature_columns", 0, "embedding_dim"), 4),
        (("feature_columns", 6, "vocabulary_size"), 61),
    ],
    "deepctr_torch_order_pools": [
        (("feature_columns", 7, "combiner"), "mean"),
        (("hyperparameters", "att_activation"), "relu"),
        (("hyperparameters", "dnn_activation"), "relu"),
    ],
    "deepctr_torch_groups": [(("feature_columns", i, "group_name"), "other") for i in (0, 2)],
    "deepctr_torch_softmax_bn_prelu": [
        (("hyperparameters", "att_weight_normalization"), False),
        (("hyperparameters", "dnn_use_bn"), False),
        (("hyperparameters", "dnn_activation"), "relu"),
        (("hyperparameters", "att_activation"), "relu"),
    ],
    "deepctr_tf_a_dice_idmask_transcription": [
        (("hyperparameters", "att_weight_normalization"), True),
        (("hyperparameters", "dnn_use_bn"), False),
        (("hyperparameters", "dnn_activation"), "tanh"),
        (("hyperparameters", "att_activation"), "sigmoid"),
    ],
    "fuxictr_a_dice_nosoftmax": [
        (("hyperparameters", "din_use_softmax"), True),
        (("hyperparameters", "dnn_activations"), "tanh"),
        (("hyperparameters", "attention_hidden_activations"), "ReLU"),
        (("hyperparameters", "batch_norm"), True),
        (("hyperparameters", "attention_output_activation"), "sigmoid"),
        (("hyperparameters", "din_target_field"), [["cate_id", "item_id"]]),
        (("hyperparameters", "din_sequence_field"), [["cate_history", "click_history"]]),
        (("hyperparameters", "din_target_field"), ["item_id", "cate_id"]),
        (("hyperparameters", "embedding_dim"), 8),
    ],
    "fuxictr_pools": [
        (("feature_map", "tags", "feature_encoder"), "layers.MaskedSumPooling()"),
        (("feature_map", "ctags", "feature_encoder"), "layers.MaskedAveragePooling()"),
        (("hyperparameters", "dnn_activations"), ["SiLU", "tanh"]),
    ],
    "fuxictr_pools_padding_row": [
        (("hyperparameters", "din_use_softmax"), False),
        (("feature_map", "tags", "max_len"), 6),
        (("hyperparameters", "attention_output_activation"), None),
    ],
    "fuxictr_two_groups_softmax": [
        (("hyperparameters", "din_use_softmax"), False),
        (("hyperparameters", "batch_norm"), False),
    ],
    "rechub_softmax": [
        (("hyperparameters", "attention_mlp_params", "use_softmax"), False),
        (("padded_lengths", "hi"), 11),
        (("hyperparameters", "attention_mlp_params", "activation"), "relu"),
    ],
    "rechub_pools_padding_row": [
        (("padded_lengths", "tags"), 6),
        (("features", 1, "pooling"), "sum"),
        (("features", 1, "padding_idx"), 0),
    ],
    "rechub_prelu_own_tables": [
        (("hyperparameters", "attention_mlp_params", "activation"), "sigmoid"),
        (("padded_lengths", "hc"), 9),
    ],
    "recbole_a_default_mean": [
        (("hyperparameters", "pooling_mode"), "sum"),
        (("hyperparameters", "pooling_mode"), "max"),
        (("hyperparameters", "numerical_features"), []),
        (("item_feature_columns",), ["cate", "item_id", "tags", "price"]),
    ],
    "tzrec_a_towers_relu_querypad": [
        (("hyperparameters", "tower_mlp", "activation"), "nn.Sigmoid"),
        (("hyperparameters", "attn_mlp", "activation"), "nn.Tanh"),
        (("hyperparameters", "final", "use_bn"), True),
        (("feature_groups", "seq.query"), ["cate", "item"]),
        (("feature_groups", "deep"), ["item", "user_id", "cate", "ctx"]),
        (("hyperparameters", "num_class"), 2),
    ],
    "zhougr1993_a_sigmoid_transcription": [
        (("hyperparameters", "item_emb_dim"), 10),
        (("hyperparameters", "att_units"), [20, 10, 5, 1]),
    ],
}
# What every case with such a knob shows: a wrong value moves some score by more than the tolerance.
ALWAYS = (
    ": input:",
    ": normalise:",
    ": scale:",
    ": kind:",
    "the other order of its inputs",
    "no bias per id",
    "no global bias",
    "positive_class",
    "its own length, not",
)
# Knobs that are the same function by construction: Dice without statistics and with alpha 0 is SiLU.
SAME = "{'kind': 'SILU'}, not {'kind': 'DICE', 'dice': {'statistics': 'IDENTITY'"


class MutationTest(ExportTest):
    def test_every_wrong_description_is_refused(self) -> None:
        count = 0
        for name, mutations in WRONG.items():
            for path, value in mutations:
                with self.subTest(case=name, path=path, value=value):
                    count += 1
                    case = self.copy_case(name, f"case{count}")
                    config = load(case / "config.json")
                    at = config
                    for step in path[:-1]:
                        at = at[step]
                    self.assertNotEqual(at.get(path[-1], ...) if isinstance(at, dict) else ..., value)
                    at[path[-1]] = value
                    (case / "config.json").write_text(json.dumps(config))
                    result = self.export_case(case, f"out{count}")
                    self.assertFalse(result["ok"])
                    self.assertFalse((self.dir / f"out{count}").exists())
        self.assertGreaterEqual(count, 48)

    def test_every_wrong_knob_of_the_spec_shows_in_the_scores(self) -> None:
        eps: dict[tuple[str, str], float] = {}
        for name in case_names():
            for text, error in self.errors(name):
                with self.subTest(case=name, knob=text):
                    if "eps:" in text:
                        key = (name.partition("_")[0], "Dice" if "Dice" in text else "BatchNorm")
                        eps[key] = max(eps.get(key, 0), error)
                    elif any(word in text for word in ALWAYS) or ("activation" in text and SAME not in text):
                        self.assertGreater(error, LIMIT)
        for key, error in eps.items():  # of every framework some unit is small enough to tell a wrong eps
            with self.subTest(eps=key):
                self.assertGreater(error, LIMIT)

    def errors(self, name: str) -> list[tuple[str, float]]:
        case = CASES / name
        description, inputs = Description.load(str(case / "config.json")), load_inputs(str(case))
        c = convert(
            frameworks.identify(description), description, str(case / "weights.safetensors"), inputs.get("side_tables")
        )
        spec, out = c.model.finished(), []
        cases = golden_cases(spec, inputs, str(case))
        for text, changed in variations(spec):
            try:
                evaluator = Evaluator(changed, c.model.tensors)
                out.append((text, max(float(difference(evaluator, g).max()) for g in cases)))
            except (KeyError, ValueError, IndexError):
                continue  # needs tensors that the model does not have
        return out

    def test_the_message_names_the_request_and_the_layer(self) -> None:
        for path, value, cause in (
            ("att_weight_normalization", True, "normalise: NORMALISE_NONE (and EMPTY_ZERO), not NORMALISE_SOFTMAX"),
            ("dnn_activation", "linear", ""),
        ):
            case = self.copy_case("deepctr_torch_a_dice_nosoftmax", path)
            config = load(case / "config.json")
            config["hyperparameters"][path] = value
            (case / "config.json").write_text(json.dumps(config))
            result = self.export_case(case)
            self.assertEqual(result["exit_code"], 3)
            self.assert_refused(result, "golden request r0", "candidate", "the framework gave", cause)


if __name__ == "__main__":
    unittest.main()
