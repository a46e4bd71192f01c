"""State dicts of other tools -> FORMAT.md."""

import contextlib
import io
import json
import math
import unittest

import torch
from safetensors.torch import load_file, save_file

from svdserve_pytorch import FormatError, convert, load
from svdserve_pytorch.__main__ import main
from tests.tools.pytorch import tiny_models
from tests.tools.pytorch.load_save_test import Folder, metadata_of, stored_tensors

QUERY = "encoder.layer.0.attention.self.query"
FFN = "encoder.layer.1.intermediate.dense"
U, V = "{name}.svd_u", "{name}.svd_v"


class Converting(Folder):
    def setUp(self):
        super().setUp()
        self.dense = tiny_models.dense_model("bert")
        self.tensors = tiny_models.factor(self.dense)  # FORMAT.md's, U·V in self.dense
        self.like = tiny_models.write_model(self.folder / "dense", self.dense, self.dense.state_dict())
        self.file, self.target = self.folder / "other.safetensors", self.folder / "target"

    def renamed(self, u=U, v=V, transform_u=lambda t: t, transform_v=lambda t: t, prefix=""):
        """The tensors as another tool might have them."""
        result = {}
        for name, tensor in self.tensors.items():
            stem, _, which = name.rpartition(".")
            if which == "U":
                name, tensor = u.format(name=stem), transform_u(tensor)
            elif which == "V":
                name, tensor = v.format(name=stem), transform_v(tensor)
            result[prefix + name] = tensor.clone().contiguous()
        return result

    def convert(self, tensors, u=U, v=V, **options):
        save_file(tensors, self.file)
        return convert(self.file, self.target, self.like, u, v, **options)

    def refuse(self, message, tensors, **options):
        with self.assertRaisesRegex(FormatError, message):
            self.convert(tensors, **options)
        self.assertFalse(self.target.exists())

    def assert_computes_the_same(self, places=None):
        inputs = tiny_models.batch()
        with torch.no_grad():
            torch.testing.assert_close(tiny_models.output(load(self.target, dtype=torch.float32), inputs),
                                       tiny_models.output(self.dense, inputs),
                                       rtol=places or 1e-4, atol=places or 2e-5)

    def test_the_same_tensors_under_other_names(self):
        ranks = self.convert(self.renamed())
        self.assertEqual(ranks[QUERY], tiny_models.RANKS["query"])
        self.assertEqual(len(ranks), 10)
        self.assertEqual(metadata_of(self.target), {"svdserve.format": "1"})
        written = stored_tensors(self.target)
        self.assertEqual(set(written), set(self.tensors))
        for name, tensor in self.tensors.items():
            self.assertTrue(torch.equal(written[name], tensor), name)
        self.assertTrue((self.target / "tokenizer.json").exists())
        self.assert_computes_the_same()

    def test_each_layout_is_found_by_the_shapes(self):
        turn, stay = torch.t, lambda t: t
        for turn_u in (turn, stay):
            for turn_v in (turn, stay):
                for u, v in ((U, V), (V, U)):  # the tool's U may be our V
                    with self.subTest(turn_u=turn_u is turn, turn_v=turn_v is turn, swapped=u == V):
                        self.convert(self.renamed(u, v, turn_u, turn_v), force=True)
                        self.assert_computes_the_same()

    def test_singular_values_go_into_both_factors(self):
        tensors = self.renamed()
        for name in [n for n in tensors if n.endswith("svd_u")]:
            s = torch.arange(1.0, tensors[name].shape[1] + 1)
            tensors[name] /= s
            tensors[name.replace("svd_u", "svd_s")] = s
        tensors[QUERY + ".svd_u"][:, 0] = 0
        tensors[QUERY + ".svd_s"][0] = 0  # a value of no weight is no error
        with torch.no_grad():
            u, v = self.tensors[QUERY + ".U"].clone(), self.tensors[QUERY + ".V"]
            u[:, 0] = 0
            self.dense.get_submodule(QUERY).weight.copy_((u @ v).T)
        self.convert(tensors, s="{name}.svd_s")
        self.assert_computes_the_same()
        norms = [load_file(self.target / "model.safetensors")[f"{QUERY}.{w}"].abs().max().item() for w in "UV"]
        self.assertTrue(all(math.isfinite(n) and n > 0 for n in norms))

    def test_a_torch_file_with_a_key_and_a_prefix(self):
        path = self.folder / "other.pt"
        torch.save({"step": 7, "model": self.renamed(prefix="module.bert.")}, path)
        arguments = ["convert", str(path), str(self.target), "--like", str(self.like), "--u", U, "--v", V]
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            self.assertEqual(main(arguments + ["--prefix", "module."]), 1)
        self.assertRegex(errors.getvalue(), "holds more than tensors; its entries are step, model")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(main(arguments + ["--prefix", "module.", "--key", "model"]), 0)
        self.assertRegex(out.getvalue(), "10 matrices of ranks 3 to 7")
        self.assert_computes_the_same()

    def test_code_in_a_torch_file_is_not_run(self):
        class Evil:
            def __reduce__(self):
                return print, ("run",)

        torch.save({"a": Evil()}, self.folder / "evil.pt")
        with self.assertRaisesRegex(FormatError, "cannot be read as tensors alone"):
            convert(self.folder / "evil.pt", self.target, self.like, U, V)

    def test_tensors_that_are_missing_come_from_the_dense_model_if_asked(self):
        pairs = {n: t for n, t in self.renamed().items() if "svd" in n}
        self.refuse("missing: .*word_embeddings", pairs)
        self.convert(pairs, fill=True)
        self.assert_computes_the_same()

    def test_types(self):
        doubles = {n: t.double() for n, t in self.renamed().items()}
        self.refuse("is torch.float64; choose one of F32, F16, BF16 by --dtype", doubles)
        self.convert(doubles, dtype=torch.bfloat16)
        self.assertEqual({t.dtype for t in stored_tensors(self.target).values()}, {torch.bfloat16})
        self.assert_computes_the_same(places=0.1)

    def test_all_model_types_and_classifiers(self):
        for model_type in tiny_models.TYPES:
            for classifier in (False, True):
                with self.subTest(model_type, classifier=classifier):
                    self.dense = tiny_models.dense_model(model_type, classifier)
                    self.tensors = tiny_models.factor(self.dense)
                    self.like = tiny_models.write_model(self.folder / f"{model_type}{classifier}", self.dense,
                                                        self.dense.state_dict())
                    self.convert(self.renamed(), force=True)
                    self.assert_computes_the_same()

    def test_names_that_match_nothing(self):
        good = self.renamed()
        self.refuse(r"--u '\{name\}.left' matches no tensor; there are .*embeddings", good, u="{name}.left")
        self.refuse("must hold {name} once", good, u="svd_u")
        self.refuse("--ignore 'opt.*' matches no tensor", good, ignore=["opt.*"])
        self.refuse("matches --v .* and another pattern", good, v="{name}.svd_u")
        half = dict(good)
        del half[QUERY + ".svd_v"]
        self.refuse(f"matrix {QUERY}: has {QUERY}.svd_u, but no {QUERY}.svd_v", half)
        odd = good | {"encoder.layer.9.x.svd_u": torch.ones(2, 1), "encoder.layer.9.x.svd_v": torch.ones(1, 2)}
        self.refuse("BertModel has no matrix encoder.layer.9.x; its matrices are", odd)

    def test_leftovers(self):
        extra = self.renamed() | {"encoder.gate": torch.ones(2)}
        self.refuse("no place for: encoder.gate", extra)
        beside = self.renamed() | {QUERY + ".weight": torch.ones(64, 64)}
        self.refuse(f"tensor {QUERY}.weight: stands beside factors", beside)
        self.convert(extra | beside, ignore=["*.gate", QUERY + ".weight"])
        self.assert_computes_the_same()

    def test_shapes_that_do_not_fit(self):
        bad = self.renamed() | {QUERY + ".svd_u": torch.ones(31, 3)}
        self.refuse(rf"matrix {QUERY}: u \[31, 3\], v \[3, 64\] do not fit in = 64 and out = 64", bad)
        self.refuse("do not fit", self.renamed() | {QUERY + ".svd_u": torch.ones(3)})
        self.refuse("do not fit", self.renamed(), u_shape="out,rank")
        self.refuse("do not go together", self.renamed(), u_shape="in,rank", v_shape="rank,in")
        self.refuse("no one way", self.renamed() | {FFN + ".svd_u": torch.ones(96, 7),
                                                    FFN + ".svd_v": torch.ones(7, 64)})
        numbers = self.renamed() | {QUERY + ".svd_s": torch.ones(4)}
        self.refuse("but no .*svd_s", numbers, s="{name}.svd_s")

    def test_an_ambiguous_layout_has_to_be_said(self):
        square = {n: t for n, t in self.renamed().items() if "svd" not in n or "self" in n}
        self.refuse("--u-shape in,rank --v-shape rank,out; --u-shape out,rank --v-shape rank,in", square, fill=True)
        self.convert(square, fill=True, u_shape="in,rank")
        written = stored_tensors(self.target)
        self.assertTrue(torch.equal(written[QUERY + ".U"], self.tensors[QUERY + ".U"]))
        self.assert_computes_the_same()

    def test_values_that_make_no_sense(self):
        tensors = self.renamed()
        for name in [n for n in tensors if n.endswith("svd_u")]:
            tensors[name.replace("svd_u", "svd_s")] = -torch.ones(tensors[name].shape[1])
        self.refuse("has a negative singular value", tensors, s="{name}.svd_s")
        self.refuse("not finite", self.renamed() | {QUERY + ".svd_u": torch.full((64, 3), torch.nan)})
        integers = torch.ones(64, 3, dtype=torch.int8)
        self.refuse("is torch.int8; quantized", self.renamed() | {QUERY + ".svd_u": integers})

    def test_configuration_stays_byte_for_byte(self):
        self.convert(self.renamed())
        self.assertEqual((self.target / "config.json").read_bytes(), (self.like / "config.json").read_bytes())
        self.assertEqual(json.loads((self.target / "config.json").read_text())["architectures"], ["BertModel"])


if __name__ == "__main__":
    unittest.main()
