"""Directories of FORMAT.md -> transformers models -> directories."""

import copy
import filecmp
import itertools
import json
import pathlib
import shutil
import tempfile
import unittest
from unittest import mock

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import svdserve_pytorch
from svdserve_pytorch import FormatError, LowRankLinear, load, load_sentence_transformer, save
from svdserve_pytorch.versions import check_versions
from tests.tools.pytorch import tiny_models

GOLDEN = sorted(tiny_models.GOLDEN.iterdir())
WIDTHS = {"as configured": (None, None), "narrow": (16, 16), "wide values": (16, 48), "queries only": (48, None)}


class Folder(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def make(self, model_type="bert", classifier=False, widths=(None, None), name="source"):
        """A factored directory and the dense model that computes the same."""
        dense = tiny_models.dense_model(model_type, classifier)
        tensors = tiny_models.factor(dense, *widths)
        version = "1" if widths == (None, None) else "2"
        return tiny_models.write_model(self.folder / name, dense, tensors, version), dense


def stored_tensors(directory):
    """As the files have them, under the names of an encoder of today."""
    result = {}
    for file in directory.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            name = name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
            result[name.replace("LayerNorm.beta", "LayerNorm.bias")] = tensor
    result.pop("embeddings.position_ids", None)
    return result


def metadata_of(directory):
    with safe_open(directory / "model.safetensors", "pt") as file:
        return file.metadata()


class GoldenModels(Folder):
    """Those of tests/golden, whose outputs transformers computed in float64."""

    def test_round_trip_gives_the_same_tensors_and_files(self):
        for source in GOLDEN:
            with self.subTest(source.name):
                pipeline = (source / "modules.json").exists()
                model = load_sentence_transformer(source) if pipeline else load(source)
                target = self.folder / source.name
                save(model, target, like=source)
                before, after = stored_tensors(source), stored_tensors(target)
                self.assertEqual(set(before), set(after))
                for name, tensor in before.items():
                    # Its Dense module is stored in F32, so the pipeline is F32.
                    dtype = torch.float32 if source.name == "mixed_bf16" else tensor.dtype
                    self.assertEqual(after[name].dtype, dtype)
                    self.assertTrue(torch.equal(tensor.to(dtype), after[name]), name)
                self.check_other_files(source, target)

    def check_other_files(self, source, target):
        for file in (f.relative_to(source) for f in source.rglob("*") if f.is_file()):
            if file.name == "model.safetensors" or "model-0" in file.name or file.name.endswith(".index.json"):
                continue
            self.assertTrue(filecmp.cmp(source / file, target / file, shallow=False), file)
        for module in source.glob("*_Dense"):
            before = load_file(module / "model.safetensors")
            after = load_file(target / module.name / "model.safetensors")
            self.assertTrue(all(torch.equal(before[n], after[n]) for n in before | after))

    def test_outputs_are_those_of_float64(self):
        for source in GOLDEN:
            with self.subTest(source.name):
                golden = json.loads((source / "golden.json").read_text())["inputs"]
                forward = self.forward_of(source)
                for item in golden:
                    ids = torch.tensor([item["ids"]])
                    with torch.no_grad():
                        got = forward({"input_ids": ids, "attention_mask": torch.ones_like(ids),
                                       "token_type_ids": torch.tensor([item["type_ids"]])})[0]
                    torch.testing.assert_close(got, torch.tensor(item["output"], dtype=torch.float64),
                                               rtol=1e-7, atol=1e-7)

    def forward_of(self, source):
        if (source / "modules.json").exists():
            model = load_sentence_transformer(source, dtype=torch.float64, device="cpu")
            return lambda inputs: model(inputs)["sentence_embedding"]
        model = load(source, dtype=torch.float64)
        if "ForSequenceClassification" in type(model).__name__:
            return lambda inputs: model(**inputs).logits
        return lambda inputs: model(**inputs).last_hidden_state.mean(dim=1)

    def test_a_factored_dense_module(self):
        source, target = self.folder / "source", self.folder / "target"
        shutil.copytree(tiny_models.GOLDEN / "max_dense", source)
        path = source / "3_Dense/model.safetensors"
        tensors = load_file(path)
        u, v = torch.randn(32, 4), torch.randn(4, 24)
        tensors["linear.weight"] = (u @ v).T.contiguous()
        save_file(tensors, path)
        dense = load_sentence_transformer(source, device="cpu").encode("the small model")
        del tensors["linear.weight"]
        save_file(tensors | {"linear.U": u, "linear.V": v}, path, {"svdserve.format": "1"})
        model = load_sentence_transformer(source, device="cpu")
        self.assertIsInstance(model[3].linear, LowRankLinear)
        torch.testing.assert_close(model.encode("the small model"), dense, rtol=1e-4, atol=1e-5)
        save(model, target, like=source)
        self.assertTrue(torch.equal(load_file(target / "3_Dense/model.safetensors")["linear.U"], u))


class Outputs(Folder):
    def test_equal_those_of_the_product_in_a_dense_model(self):
        for model_type, classifier, widths in itertools.product(tiny_models.TYPES, (False, True), WIDTHS):
            with self.subTest(model_type, classifier=classifier, widths=widths):
                source, dense = self.make(model_type, classifier, WIDTHS[widths],
                                          f"{model_type}-{classifier}-{widths}")
                model = load(source)
                self.assertIsInstance(model, type(dense))
                inputs = tiny_models.batch()
                with torch.no_grad():
                    torch.testing.assert_close(tiny_models.output(model, inputs),
                                               tiny_models.output(dense, inputs), rtol=1e-4, atol=2e-5)

    def test_narrow_heads_with_either_attention_and_copied(self):
        source, dense = self.make(widths=(16, 48))
        inputs = tiny_models.batch()
        with torch.no_grad():
            expected = tiny_models.output(dense, inputs)
            for attention in ("sdpa", "eager"):
                model = copy.deepcopy(load(source, attn_implementation=attention))
                torch.testing.assert_close(tiny_models.output(model, inputs), expected, rtol=1e-4, atol=2e-5)
            weights = model(**inputs, output_attentions=True).attentions
        self.assertEqual([w.shape for w in weights], [(2, tiny_models.HEADS, 9, 9)] * tiny_models.LAYERS)

    def test_narrow_heads_are_version_2(self):
        for widths, version in (((None, None), "1"), ((16, 48), "2")):
            source, _ = self.make(widths=widths, name=f"source-{version}")
            target = self.folder / f"target-{version}"
            save(load(source), target, like=source)
            self.assertEqual(metadata_of(target), {"svdserve.format": version})
            before, after = stored_tensors(source), stored_tensors(target)
            self.assertTrue(all(torch.equal(before[n], after[n]) for n in before | after))

    def test_stored_types_are_promoted_and_chosen(self):
        source, dense = self.make()
        tensors = load_file(source / "model.safetensors")
        name = next(n for n in tensors if n.endswith(".U"))
        tensors = {n: t.to(torch.bfloat16 if n == name else torch.float16) for n, t in tensors.items()}
        save_file(tensors, source / "model.safetensors", {"svdserve.format": "1"})
        self.assertEqual(load(source).dtype, torch.float32)
        model = load(source, dtype=torch.float16)
        save(model, self.folder / "kept", like=source)
        save(model, self.folder / "chosen", like=source, dtype=torch.bfloat16)
        for target, dtype in (("kept", torch.float16), ("chosen", torch.bfloat16)):
            self.assertEqual({t.dtype for t in stored_tensors(self.folder / target).values()}, {dtype})

    def test_a_new_classifier_on_an_encoder(self):
        source = tiny_models.GOLDEN / "factored"
        with self.assertLogs("svdserve_pytorch", "WARNING") as log:
            model = load(source, transformers.BertForSequenceClassification, num_labels=3)
        self.assertIn("classifier.weight", log.output[0])
        self.assertNotIn("encoder", log.output[0])
        target = self.folder / "target"
        save(model, target, like=source)
        config = json.loads((target / "config.json").read_text())
        self.assertEqual(config["architectures"], ["BertForSequenceClassification"])
        self.assertEqual(len(config["id2label"]), 3)
        self.assertFalse((target / "modules.json").exists())  # it would embed
        self.assertTrue((target / "vocab.txt").exists())
        again, inputs = load(target), tiny_models.batch()
        self.assertIsInstance(again, transformers.BertForSequenceClassification)
        with torch.no_grad():
            self.assertTrue(torch.equal(again(**inputs).logits, model(**inputs).logits))


QUERY = "encoder.layer.1.attention.self.query"
VALUE = "encoder.layer.0.attention.self.value"


class Refusals(Folder):
    def refuse(self, message, change, metadata=None):
        """After `change` of the tensors, load() says `message`."""
        with self.subTest(message), tempfile.TemporaryDirectory() as scratch:
            dense = tiny_models.dense_model("bert")
            tensors = tiny_models.factor(dense)
            change(tensors)
            source = tiny_models.write_model(pathlib.Path(scratch) / "source", dense, tensors)
            save_file(tensors, source / "model.safetensors", metadata or {"svdserve.format": "1"})
            with self.assertRaisesRegex(FormatError, message):
                load(source)

    def test_tensors(self):
        def put(name, tensor):
            return lambda tensors: tensors.update({name: tensor})

        self.refuse(f"{QUERY}.U: has no {QUERY}.V", lambda t: t.pop(QUERY + ".V"))
        self.refuse(f"{QUERY}.V: has no {QUERY}.U", lambda t: t.pop(QUERY + ".U"))
        self.refuse("share a rank", put(QUERY + ".V", torch.ones(2, 64)))
        self.refuse("share a rank of 1 to 64", lambda t: t.update(
            {QUERY + ".U": torch.ones(64, 70), QUERY + ".V": torch.ones(70, 64)}))
        self.refuse("stands beside", put(QUERY + ".weight", torch.ones(64, 64)))
        self.refuse("not finite", put(QUERY + ".V", torch.full((3, 64), torch.nan)))
        self.refuse("is torch.int8", put(QUERY + ".V", torch.ones(3, 64, dtype=torch.int8)))
        self.refuse("no place for: encoder.scale", put("encoder.scale", torch.ones(1)))
        self.refuse("has no matrix encoder.layer.7.x", lambda t: t.update(
            {"encoder.layer.7.x.U": torch.ones(4, 2), "encoder.layer.7.x.V": torch.ones(2, 4)}))
        self.refuse(f"missing: {QUERY}.bias", lambda t: t.pop(QUERY + ".bias"))
        self.refuse("goes from 31 to 64", put(QUERY + ".U", torch.ones(31, 3)))
        for width in (33, 16, 40, 288):
            self.refuse(f"gives {width}, which is not 2 heads", put(VALUE + ".V", torch.ones(5, width)))
        self.refuse("attention.self.key: gives 64, but", put(QUERY + ".V", torch.ones(3, 32)))
        self.refuse("takes 64, but .* gives 32", put(VALUE + ".V", torch.ones(5, 32)))
        self.refuse("word_embeddings", put("embeddings.word_embeddings.weight", torch.ones(49, 64)))

    def test_metadata(self):
        self.refuse("has no \"svdserve.format\"", lambda t: None, {"format": "pt"})
        self.refuse("\"svdserve.format\" '3'; known are 1, 2", lambda t: None, {"svdserve.format": "3"})
        source, _ = self.make(widths=(16, 48))
        tensors = load_file(source / "model.safetensors")
        save_file(tensors, source / "model.safetensors", {"svdserve.format": "1"})
        with self.assertRaisesRegex(FormatError, "needs \"svdserve.format\" \"2\""):
            load(source)

    def test_directories(self):
        with self.assertRaisesRegex(FormatError, "has no config.json"):
            load(self.folder)
        source, _ = self.make()
        (source / "model.safetensors").write_bytes(b"short")
        with self.assertRaisesRegex(FormatError, "model.safetensors: cannot be read"):
            load(source)
        (source / "model.safetensors").unlink()
        with self.assertRaisesRegex(FormatError, "has neither"):
            load(source)
        (source / "config.json").write_text('{"model_type": "gpt2"}')
        with self.assertRaisesRegex(FormatError, "'gpt2'; known are bert"):
            load(source)

    def test_versions_of_transformers(self):
        check_versions("5.24.0")
        for version in ("4.57.1", "6.0.0"):
            with self.assertRaisesRegex(ImportError, f"installed is {version}"):
                check_versions(version)


class Saving(Folder):
    def setUp(self):
        super().setUp()
        self.source, _ = self.make()
        self.target = self.folder / "target"
        self.model = load(self.source)

    def assert_nothing_new(self):
        self.assertEqual([f.name for f in self.folder.iterdir()], ["source"])

    def test_an_error_leaves_nothing(self):
        with mock.patch.object(svdserve_pytorch.saving, "write_file", side_effect=OSError("full")):
            with self.assertRaisesRegex(OSError, "full"):
                save(self.model, self.target, like=self.source)
        self.assert_nothing_new()

    def test_values_that_cannot_be_served_are_refused(self):
        with torch.no_grad():
            self.model.embeddings.word_embeddings.weight[3, 3] = 70000.0
        with self.assertRaisesRegex(FormatError, "word_embeddings.weight: has values too large"):
            save(self.model, self.target, like=self.source, dtype=torch.float16)
        with torch.no_grad():
            self.model.embeddings.word_embeddings.weight[3, 3] = torch.inf
        with self.assertRaisesRegex(FormatError, "word_embeddings.weight: has values that are not finite"):
            save(self.model, self.target, like=self.source)
        self.assert_nothing_new()

    def test_what_exists_is_replaced_only_by_force(self):
        save(self.model, self.target, like=self.source)
        with torch.no_grad():
            self.model.embeddings.word_embeddings.weight[3, 3] = 42
        with self.assertRaisesRegex(FileExistsError, "target exists"):
            save(self.model, self.target, like=self.source)
        (self.target / "stale.txt").write_text("of the old model")
        save(self.model, self.target, like=self.source, force=True)
        self.assertEqual(stored_tensors(self.target)["embeddings.word_embeddings.weight"][3, 3], 42)
        self.assertEqual({f.name for f in self.folder.iterdir()}, {"source", "target"})
        self.assertFalse((self.target / "stale.txt").exists())

    def test_only_a_models_directory_is_replaced(self):
        self.target.mkdir()
        (self.target / "thesis.tex").write_text("years of work")
        with self.assertRaisesRegex(FileExistsError, "is not a model's directory"):
            save(self.model, self.target, like=self.source, force=True)
        self.assertTrue((self.target / "thesis.tex").exists())
        for inside in (self.source, self.folder):
            with self.assertRaisesRegex(FileExistsError, "is, or lies in"):
                save(self.model, inside, like=self.source, force=True)
        self.assertTrue((self.source / "config.json").exists())

    def test_other_models_and_objects_are_refused(self):
        other, _ = self.make("roberta", name="other")
        with self.assertRaisesRegex(ValueError, "of type 'bert', but .* of 'roberta'"):
            save(self.model, self.target, like=other)
        with self.assertRaisesRegex(TypeError, "Linear is neither"):
            save(torch.nn.Linear(2, 2), self.target, like=self.source)


if __name__ == "__main__":
    unittest.main()
