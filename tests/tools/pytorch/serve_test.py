"""compress -> PyTorch -> save -> serve: the same embeddings."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import numpy
import torch

import running_server  # of tests/bench
from svdserve_pytorch import load, load_sentence_transformer, save
from tests.tools.pytorch import tiny_models
from tests.tools.pytorch.load_save_test import Folder, stored_tensors

SVDSERVE, SVDCTL = os.environ.get("TEST_SVDSERVE"), os.environ.get("TEST_SVDCTL")
MINILM = tiny_models.ROOT / "build/models/all-MiniLM-L6-v2"
DENSE = MINILM if MINILM.exists() else tiny_models.GOLDEN / "max_dense"
TEXTS = ["the small model serves text", "Money in the river bank?", "a document of low rank: 42", "x",
         "the rivers of text banking: serving, serves " * 3]
LEAST_COSINE = 0.99999


def svdctl(*arguments):
    """What it prints."""
    done = subprocess.run([SVDCTL, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"svdctl {arguments[0]} failed: {done.stderr}")
    return done.stdout


def served(model):
    """What `svdctl embed` gets for TEXTS: [texts, width]."""
    with running_server.RunningServer(SVDSERVE, model) as server:
        printed = svdctl("embed", "--server", server.address, "--json", *TEXTS)
    lines = [json.loads(line) for line in printed.splitlines()]
    return numpy.array([line["embedding"] for line in lines], dtype=numpy.float64)


def cosines(a, b):
    a, b = numpy.asarray(a, dtype=numpy.float64), numpy.asarray(b, dtype=numpy.float64)
    return (a * b).sum(1) / numpy.linalg.norm(a, axis=1) / numpy.linalg.norm(b, axis=1)


@unittest.skipUnless(SVDSERVE and SVDCTL, "needs --svdserve and --svdctl")
class Serving(Folder):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.compressed = pathlib.Path(scratch.name) / "compressed"
        svdctl("compress", DENSE, cls.compressed, "--ratio", "0.5", "--method", "svd")

    def test_round_trip_gives_the_same_embeddings(self):
        compressed, target = self.compressed, self.folder / "saved"
        model = load_sentence_transformer(compressed, dtype=torch.float32, device="cpu")
        save(model, target, like=compressed)
        self.assertTrue(any(name.endswith(".U") for name in stored_tensors(target)))
        before, after = served(compressed), served(target)
        self.assertGreaterEqual(cosines(before, after).min(), LEAST_COSINE)
        self.assertGreaterEqual(cosines(model.encode(TEXTS), after).min(), LEAST_COSINE)

    def test_a_trained_model_is_served(self):
        compressed, target = self.compressed, self.folder / "trained"
        model = load_sentence_transformer(compressed, dtype=torch.float32, device="cpu").train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        vectors = model(model.preprocess(TEXTS))["sentence_embedding"]
        (vectors @ vectors.T).sum().backward()  # any loss
        optimizer.step()
        save(model.eval(), target, like=compressed)
        after = served(target)
        self.assertLess(cosines(served(compressed), after).min(), LEAST_COSINE)
        self.assertGreaterEqual(cosines(model.encode(TEXTS), after).min(), LEAST_COSINE)

    def test_other_architectures_and_widths_of_heads(self):
        for name in ("narrow_heads_f16", "roberta", "xlm_roberta_factored", "distilbert_factored"):
            with self.subTest(name):
                source, target = tiny_models.GOLDEN / name, self.folder / name
                model = load_sentence_transformer(source, dtype=torch.float32, device="cpu")
                save(model, target, like=source)
                self.assertGreaterEqual(cosines(model.encode(TEXTS), served(target)).min(), LEAST_COSINE)

    def test_16_bit_storage(self):
        compressed, target = self.compressed, self.folder / "half"
        save(load(compressed), target, like=compressed, dtype=torch.float16)
        stored_again = load_sentence_transformer(target, dtype=torch.float32, device="cpu")
        self.assertGreaterEqual(cosines(stored_again.encode(TEXTS), served(target)).min(), LEAST_COSINE)


if __name__ == "__main__":
    unittest.main()
