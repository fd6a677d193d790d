"""Corrupted and mismatched inputs: each is refused with a message that names the thing and what to do, and nothing is
left behind."""
from __future__ import annotations

import io
import json
import pathlib
import struct
import unittest
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

import transcriptions
from support import CASES, EXPORTERS, ExportTest, load, read_safetensors, write_safetensors

TORCH_CASE = "deepctr_torch_a_dice_nosoftmax"
FUXI_CASE = "fuxictr_pools"


def weights(change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[pathlib.Path], None]:
    """A change of the tensors of weights.safetensors."""

    def run(case: pathlib.Path) -> None:
        tensors = {n: v.copy() for n, v in read_safetensors(case / "weights.safetensors").items()}
        change(tensors)
        write_safetensors(case / "weights.safetensors", tensors)

    return run


def edit(name: str, change: Callable[[Any], None]) -> Callable[[pathlib.Path], None]:
    """A change of a JSON file."""

    def run(case: pathlib.Path) -> None:
        data = load(case / name)
        change(data)
        (case / name).write_text(json.dumps(data))

    return run


def text(name: str, change: Callable[[str], str]) -> Callable[[pathlib.Path], None]:
    return lambda case: (case / name).write_text(change((case / name).read_text()))


def raw(change: Callable[[bytes], bytes]) -> Callable[[pathlib.Path], None]:
    def run(case: pathlib.Path) -> None:
        path = case / "weights.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return run


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.pop(key)


def put(*path_and_value: Any) -> Callable[[Any], None]:
    *path, last, value = path_and_value

    def run(data: Any) -> None:
        for step in path:
            data = data[step]
        data[last] = value

    return run


def nan(name: str, value: float = np.nan) -> Callable[[dict[str, np.ndarray]], None]:
    def run(tensors: dict[str, np.ndarray]) -> None:
        tensors[name].reshape(-1)[3] = value

    return run


def rename(old: str, new: str) -> Callable[[dict[str, np.ndarray]], None]:
    def run(tensors: dict[str, np.ndarray]) -> None:
        tensors[new] = tensors.pop(old)

    return run


LINEAR = "dnn.linears.0.weight"
TABLE = "embedding_dict.item_id.weight"
SEEN = "inputs.json"
H = "hyperparameters"

# What is wrong -> (case, what makes it wrong, words that the message has).
REFUSALS: dict[str, tuple[str, Callable[[pathlib.Path], None], tuple[str, ...]]] = {
    # The weights' file.
    "empty weights": (TORCH_CASE, raw(lambda b: b""), ("weights.safetensors", "empty")),
    "weights cut in the header": (TORCH_CASE, raw(lambda b: b[:200]), ("header of", "are left in the file")),
    "weights cut in the data": (TORCH_CASE, raw(lambda b: b[:-500]), ("the file at", "it is cut")),
    "a zip under the wrong name": (TORCH_CASE, raw(lambda b: b"PK\x03\x04" + b), ("zip archive", "rename it")),
    "a header that is not JSON": (TORCH_CASE, raw(lambda b: b[:8] + b"x" + b[9:]), ("header is not JSON",)),
    "offsets that do not fit the shape": (
        TORCH_CASE,
        raw(
            lambda b: b.replace(b'"shape":[40,8]', b'"shape":[41,8]').replace(b'"shape": [40, 8]', b'"shape": [41, 8]')
        ),
        ("data_offsets", "bytes"),
    ),
    # Tensors.
    "a tensor is missing": (TORCH_CASE, weights(drop(LINEAR)), (LINEAR, "missing", "[32, 43]", "dnn_hidden_units")),
    "a tensor under another name": (
        TORCH_CASE,
        weights(rename("out.bias", "out.bais")),
        ("out.bias", "is it out.bais?"),
    ),
    "an extra tensor": (
        TORCH_CASE,
        weights(put("extra.weight", np.zeros((2, 3), np.float32))),
        ("extra.weight [2, 3]", "does not account for"),
    ),
    "a misshapen tensor": (
        TORCH_CASE,
        weights(put(LINEAR, np.zeros((32, 42), np.float32))),
        (LINEAR, "[32, 42]", "expected [32, 43]"),
    ),
    "a transposed tensor": (
        TORCH_CASE,
        weights(put(LINEAR, np.zeros((43, 32), np.float32))),
        (LINEAR, "expected [32, 43]"),
    ),
    "a table of integers": (
        TORCH_CASE,
        weights(put(TABLE, np.zeros((60, 8), np.int64))),
        (TABLE, "I64", "expected F64"),
    ),
    "NaN in a layer": (TORCH_CASE, weights(nan(LINEAR)), (LINEAR, "nan at [0, 3]")),
    "infinity in a table": (TORCH_CASE, weights(nan(TABLE, np.inf)), ("item_id", "not a finite number", "[0, 3]")),
    "a negative variance": (
        TORCH_CASE,
        weights(nan("attention.local_att.dnn.activation_layers.0.bn.running_var", -0.1)),
        ("running_var", "a variance is not negative"),
    ),
    "weights of another model": (
        TORCH_CASE,
        lambda case: (case / "weights.safetensors").write_bytes(
            (CASES / FUXI_CASE / "weights.safetensors").read_bytes()
        ),
        ("missing",),
    ),
    "shared tables that differ": (
        "fuxictr_a_dice_nosoftmax",
        weights(nan("embedding_layer.embedding_layers.click_history.weight", 1)),
        ("click_history", "differ", "share_embedding"),
    ),
    "a LayerNorm": (
        "tzrec_a_towers_relu_querypad",
        weights(
            lambda t: t.update(
                {
                    "model.towers.deep.mlp.0.perceptron.1.weight": np.ones(32, np.float32),
                    "model.towers.deep.mlp.0.perceptron.1.bias": np.ones(32, np.float32),
                }
            )
        ),
        ("LayerNorm",),
    ),
    "a GRU": (
        "deepctr_torch_a_dice_nosoftmax",
        weights(put("gru.weight_ih_l0", np.zeros((3, 3), np.float32))),
        ("gru.weight_ih_l0",),
    ),
    # The description.
    "a description that is not JSON": (TORCH_CASE, text("config.json", lambda s: s[:-20]), ("config.json", "not JSON")),
    "a key twice": (TORCH_CASE, text("config.json", lambda s: s.replace('"case"', '"kind"', 1)), ("'kind'", "twice")),
    "an unknown framework": (
        TORCH_CASE,
        edit("config.json", put("framework", {"name": "xyz"})),
        ("'xyz'", "accepted: deepctr-torch"),
    ),
    "a framework that is refused": (
        TORCH_CASE,
        edit("config.json", put("framework", {"repo": "UlionTse/mlgb"})),
        ("outer product",),
    ),
    "MultiWindowDIN": (
        TORCH_CASE,
        edit("config.json", put("framework", {"name": "MultiWindowDIN"})),
        ("MultiWindowDIN", "window means"),
    ),
    "an activation outside the family": (
        TORCH_CASE,
        edit("config.json", put(H, "dnn_activation", "gelu")),
        ("dnn_activation", "'gelu'"),
    ),
    "Dice in DeepCTR-Torch's tower": (
        TORCH_CASE,
        edit("config.json", put(H, "dnn_activation", "dice")),
        ("assertion", "accepted: relu"),
    ),
    "a hyper-parameter of the wrong type": (
        TORCH_CASE,
        edit("config.json", put(H, "dnn_hidden_units", "32,16")),
        ("dnn_hidden_units", "is not a list"),
    ),
    "a layer of no units": (
        TORCH_CASE,
        edit("config.json", put(H, "dnn_hidden_units", [32, 0])),
        ("a layer of 0 units",),
    ),
    "a regression": (TORCH_CASE, edit("config.json", put(H, "task", "regression")), ("task", "binary")),
    "no scope for a feature": (
        TORCH_CASE,
        edit("config.json", lambda d: d["feature_scopes"].pop("score")),
        ("feature_scopes.score", "candidate"),
    ),
    "a scope that the network contradicts": (
        TORCH_CASE,
        edit("config.json", put("feature_scopes", "hist_item_id", "user")),
        ("hist_item_id", "makes it sequence"),
    ),
    "a history without its column": (
        TORCH_CASE,
        edit("config.json", put(H, "history_feature_list", ["item_id", "brand"])),
        ("'brand'", "hist_brand"),
    ),
    "truncation that the inputs cannot have": (
        TORCH_CASE,
        edit("config.json", put("truncation", {"side": "pre", "max_len": 11})),
        ("max_len: 11 > 10",),
    ),
    "truncation of an unknown side": (
        TORCH_CASE,
        edit("config.json", put("truncation", {"side": "middle"})),
        ("'middle'", "accepted: pre"),
    ),
    "a column with weights": (
        TORCH_CASE,
        edit("config.json", put("feature_columns", 8, "weight_name", "w")),
        ("tags", "weight_name"),
    ),
    "a state_dict of other shapes": (
        TORCH_CASE,
        edit("config.json", put("state_dict", LINEAR, [32, 44])),
        (LINEAR, "different models"),
    ),
    "DIN groups of different sizes": (
        "fuxictr_a_dice_nosoftmax",
        edit("config.json", put(H, "din_target_field", [["item_id"]])),
        ("1 fields", "one by one"),
    ),
    "FuxiCTR 1.0": (FUXI_CASE, edit("config.json", put(H, "din_query_field", "item_id")), ("FuxiCTR 1.0",)),
    "a DenseFeature in rechub": (
        "rechub_pools",
        edit("config.json", put("features", 0, "type", "DenseFeature")),
        ("DenseFeature",),
    ),
    "two float fields in RecBole": (
        "recbole_sum",
        edit("config.json", put(H, "numerical_features", ["price", "w"])),
        ("more than one float field",),
    ),
    # Golden data and side tables.
    "no expected.json": (TORCH_CASE, lambda case: (case / "expected.json").unlink(), ("expected.json", "No such file")),
    "too few scores": (
        TORCH_CASE,
        edit("expected.json", lambda d: d["requests"][1]["scores"].pop()),
        ("request r1", "scores for"),
    ),
    "a score of NaN": (
        TORCH_CASE,
        edit("expected.json", put("requests", 0, "scores", 2, None)),
        ("request r0, candidate 2", "leave that request out"),
    ),
    "logits for scores": (TORCH_CASE, edit("expected.json", put("requests", 0, "scores", 0, 1.7)), ("not logits",)),
    "a request without scores": (
        TORCH_CASE,
        edit(SEEN, lambda d: d["requests"][2].update(id="r9")),
        ("no scores for request r9",),
    ),
    "a request without a feature": (
        TORCH_CASE,
        edit(SEEN, lambda d: d["requests"][1]["features"].pop("gender")),
        ("request r1: gender", "missing"),
    ),
    "an id out of vocabulary": (
        TORCH_CASE,
        edit(SEEN, put("requests", 1, "candidates", 0, "item_id", 60)),
        ("item_id", "id 60", "[0, 60)"),
    ),
    "histories of different lengths": (
        TORCH_CASE,
        edit(SEEN, lambda d: d["requests"][2]["sequences"]["hist_cate_id"].pop()),
        ("request r2: hist_cate_id has 5", "hist_item_id has 6"),
    ),
    "a score that is wrong": (
        TORCH_CASE,
        edit("expected.json", put("requests", 3, "scores", 1, 0.5)),
        ("golden request r3, candidate 1", "gave 0.5"),
    ),
    "no side table": ("recbole_sum", edit(SEEN, drop("side_tables")), ("side table cate", "--side-tables FILE")),
    "a side table that is too short": (
        "recbole_sum",
        edit(SEEN, lambda d: d["side_tables"]["cate"].pop()),
        ("side table cate: 49 entries, expected 50",),
    ),
    "a side table out of range": (
        "recbole_sum",
        edit(SEEN, put("side_tables", "cate", 7, 99)),
        ("side table cate[7]: id 99 is not in [0, 9)",),
    ),
}


class RefusalTest(ExportTest):
    def test_every_corrupted_or_mismatched_input_is_refused(self) -> None:
        self.assertGreaterEqual(len(REFUSALS), 30)
        for i, (what, (name, spoil, words)) in enumerate(REFUSALS.items()):
            with self.subTest(what=what):
                case = self.copy_case(name, f"case{i}")
                spoil(case)
                result = self.export_case(case, f"out{i}")
                self.assert_refused(result, *words)
                self.assertFalse((self.dir / f"out{i}").exists())
        self.assertEqual([p.name for p in self.dir.iterdir() if p.name.startswith(".tmp")], [])

    def test_a_framework_that_the_description_contradicts_is_refused(self) -> None:
        self.assert_refused(self.export_case(CASES / FUXI_CASE, "out", "recbole"), "FRAMEWORK is recbole", "fuxictr")

    def test_an_output_that_is_there_is_not_touched(self) -> None:
        (self.dir / "out").mkdir()
        (self.dir / "out" / "mine").write_text("x")
        self.assert_refused(self.export_case(CASES / FUXI_CASE), "not empty")
        self.assertEqual([p.name for p in (self.dir / "out").iterdir()], ["mine"])


class BatchDependentTest(ExportTest):
    """Models whose scores depend on the batch, without frozen statistics."""

    def test_dien_without_statistics_is_refused_with_what_to_freeze(self) -> None:
        case = transcriptions.dien(1, 0)
        del case.config["frozen_statistics"]
        self.assert_refused(
            self.export_case(self.write_case(case)), "dice_1, dice_2", "batch", "frozen_statistics", "mean and variance"
        )

    def test_x_deeplearning_wants_its_batch_norm_frozen_too(self) -> None:
        case = transcriptions.dien(1, 0)
        case.config["framework"] = {"repo": "alibaba/x-deeplearning"}
        self.assert_refused(self.export_case(self.write_case(case)), "bn1", "training mode")

    def test_statistics_may_be_tensors(self) -> None:
        case = transcriptions.dien(1, 0)
        for name, values in list(case.config["frozen_statistics"].items()):
            if name != "padded_length":
                case.tensors[f"{name}/moving_mean"] = np.array(values["mean"], np.float32)
                case.tensors[f"{name}/moving_variance"] = np.array(values["var"], np.float32)
        del case.config["frozen_statistics"]
        self.assert_exported(self.export_case(self.write_case(case)))

    def test_a_gru_is_refused_by_name(self) -> None:
        case = transcriptions.dien(1, 0)
        case.tensors["rnn_1/gru1/gru_cell/gates/kernel"] = np.zeros((2, 2), np.float32)
        self.assert_refused(self.export_case(self.write_case(case)), "GRU", "DIEN")

    def test_a_dygraph_checkpoint_of_paddlerec_lacks_its_attention(self) -> None:
        case = transcriptions.paddlerec(1, False)
        for old in [n for n in case.tensors if n.startswith(("attention_layer", "con_layer"))]:
            values = case.tensors.pop(old)
            if old.startswith("con_layer"):
                part = old.split(".")
                number = {"0": "linearCon", "1": "linear_0", "3": "linear_1", "5": "linear_2"}[part[1]]
                case.tensors[f"{number}.{part[2]}"] = values
        self.assert_refused(self.export_case(self.write_case(case)), "dygraph", "static graph")

    def test_a_position_wise_prelu_is_refused_by_name(self) -> None:
        case = transcriptions.deepctr(1, False, False, False)
        case.config["hyperparameters"]["att_activation"] = "prelu"
        for name in [n for n in case.tensors if "/dice_" in n]:
            del case.tensors[name]
        for i, units in enumerate((9, 4)):
            name = "attention_sequence_pooling_layer_1/local_activation_unit_1/dnn_2/p_re_lu" + (f"_{i}" if i else "")
            case.tensors[f"{name}/alpha"] = np.zeros((6, units), np.float32)
        self.assert_refused(self.export_case(self.write_case(case)), "slope per (position, unit)")


class ContainerTest(ExportTest):
    """Weights in other containers, good and bad."""

    def pt(self, state: dict[str, np.ndarray], data: bytes | None = None) -> bytes:
        """A zip as torch.save writes it, without torch."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("archive/data.pkl", data if data is not None else _pickled(state))
            archive.writestr("archive/byteorder", b"little")
            for i, values in enumerate(state.values()):
                archive.writestr(f"archive/data/{i}", values.tobytes())
        return out.getvalue()

    def with_weights(self, name: str, data: bytes) -> dict[str, Any]:
        case = CASES / FUXI_CASE
        (self.dir / name).write_bytes(data)
        return self.export(
            "auto",
            "--weights",
            self.dir / name,
            "--description",
            case / "config.json",
            "--golden",
            case,
            "--out",
            self.dir / f"out {name}",
        )

    def test_pt_and_npz_give_the_same_as_safetensors(self) -> None:
        state = read_safetensors(CASES / FUXI_CASE / "weights.safetensors")
        npz, packed = io.BytesIO(), io.BytesIO()
        np.savez(npz, **state)
        np.savez_compressed(packed, **state)
        digests = {self.export_case(CASES / FUXI_CASE, "safe")["digest"]}
        for name, data in (("w.pt", self.pt(state)), ("w.npz", npz.getvalue()), ("packed.npz", packed.getvalue())):
            result = self.with_weights(name, data)
            self.assert_exported(result)
            digests.add(result["digest"])
        self.assertEqual(len(digests), 1)

    def test_a_pickle_that_runs_code_is_refused_and_not_run(self) -> None:
        marker = self.dir / "ran"
        command = f"touch {marker}".encode()
        evil = b"cposix\nsystem\n(S'" + command + b"'\ntR."
        self.assert_refused(
            self.with_weights("evil.pt", self.pt({}, evil)), "posix.system", "could run any code", "state_dict()"
        )
        self.assertFalse(marker.exists())

    def test_a_whole_model_is_refused_with_the_way_out(self) -> None:
        data = b"cmy_project.models\nDIN\n)\x81."
        self.assert_refused(
            self.with_weights("model.pt", self.pt({}, data)), "my_project.models.DIN", "torch.save(model.state_dict()"
        )

    def test_damaged_archives_are_refused(self) -> None:
        good = self.pt(read_safetensors(CASES / FUXI_CASE / "weights.safetensors"))
        self.assertFalse(self.with_weights("cut.pt", good[:-200])["ok"])
        self.assert_refused(self.with_weights("cut.npz", good[:-200]), "zip archive")
        self.assert_refused(self.with_weights("bad.pt", self.pt({}, b"\x80\x04garbage")), "cannot be read")
        self.assert_refused(self.with_weights("list.pt", self.pt({}, b"]q.")), "state_dict")

    def test_other_suffixes_are_refused_with_the_way_out(self) -> None:
        for name, words in (
            ("w.ckpt", "tf.global_variables"),
            ("w.pdparams", "paddle.load"),
            ("w.pkl", "runs code"),
            ("w.txt", ".safetensors"),
        ):
            self.assert_refused(self.with_weights(name, b"x"), words)

    def test_a_missing_library_is_named(self) -> None:
        import subprocess
        import sys

        script = (
            f"import sys; sys.path.insert(0, {str(EXPORTERS)!r})\n"
            "sys.modules['h5py'] = sys.modules['torch'] = None\n"
            "from din_export.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        for name, package in (("w.h5", "python3-h5py"), ("old.pt", "python3-torch")):
            (self.dir / name).write_bytes(b"\x80\x02" + struct.pack("<Q", 1))
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    script,
                    "auto",
                    "--weights",
                    str(self.dir / name),
                    "--description",
                    str(CASES / FUXI_CASE / "config.json"),
                    "--unverified",
                    "--out",
                    str(self.dir / "out"),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(package, done.stderr)

    def test_keras_h5(self) -> None:
        try:
            import h5py
        except ImportError:
            self.skipTest("no h5py")
        case = transcriptions.deepctr(1, True, True, False)
        directory = self.write_case(case)
        with h5py.File(self.dir / "w.h5", "w") as file:
            layers: dict[str, list[str]] = {}
            for name in case.tensors:
                layers.setdefault(name.split("/")[0], []).append(name)
            file.attrs["layer_names"] = [n.encode() for n in layers]
            for layer, names in layers.items():
                group = file.create_group(layer)
                group.attrs["weight_names"] = [f"{n}:0".encode() for n in names]
                for n in names:
                    group.create_dataset(f"{n}:0", data=case.tensors[n])
        self.assert_exported(
            self.export(
                "deepctr",
                "--weights",
                self.dir / "w.h5",
                "--description",
                directory / "config.json",
                "--golden",
                directory,
                "--out",
                self.dir / "h5",
            )
        )

    def test_half_precision_tables_stay_and_layers_are_widened(self) -> None:
        case = self.copy_case(FUXI_CASE)
        state = read_safetensors(case / "weights.safetensors")
        half = {n: (v.astype(np.float16) if "user_id" in n else v) for n, v in state.items()}
        write_safetensors(case / "weights.safetensors", half)
        result = self.export(
            "auto",
            "--weights",
            case / "weights.safetensors",
            "--description",
            case / "config.json",
            "--unverified",
            "--out",
            self.dir / "out",
        )
        self.assertTrue(result["ok"], result.get("error"))
        self.assertEqual(
            str(read_safetensors(self.dir / "out" / "weights.safetensors")["table.user_id"].dtype), "float16"
        )


def _pickled(state: dict[str, np.ndarray]) -> bytes:
    """The index of a state_dict, as torch's pickler spells it."""
    types = {"float32": "FloatStorage", "int64": "LongStorage"}
    out = b"\x80\x02ccollections\nOrderedDict\n)R("
    text = lambda s: b"X" + struct.pack("<I", len(s.encode())) + s.encode()
    number = lambda n: b"J" + struct.pack("<i", n)
    for i, (name, values) in enumerate(state.items()):
        stride = [s // values.itemsize for s in np.ascontiguousarray(values).strides]
        storage = (
            b"("
            + text("storage")
            + b"ctorch\n"
            + types[str(values.dtype)].encode()
            + b"\n"
            + text(str(i))
            + text("cpu")
            + number(values.size)
            + b"tQ"
        )
        shape = b"(" + b"".join(number(n) for n in values.shape) + b"t"
        steps = b"(" + b"".join(number(n) for n in stride) + b"t"
        out += (
            text(name)
            + b"ctorch._utils\n_rebuild_tensor_v2\n("
            + storage
            + number(0)
            + shape
            + steps
            + b"\x89ccollections\nOrderedDict\n)RtR"
        )
    return out + b"u."


if __name__ == "__main__":
    unittest.main()
