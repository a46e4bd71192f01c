"""Factors learn: plain optimizers, transformers' Trainer, sentence-transformers."""

import importlib.util
import unittest

import torch
import transformers

from svdserve_pytorch import LowRankLinear, load, load_sentence_transformer, save
from tests.tools.pytorch import tiny_models
from tests.tools.pytorch.load_save_test import Folder


def factors(model):
    """{name: copy} of every U and V."""
    return {f"{name}.{which}": getattr(layer, which).detach().clone()
            for name, layer in model.named_modules() if isinstance(layer, LowRankLinear) for which in "UV"}


class Training(Folder):
    def assert_all_changed(self, before, after):
        self.assertGreater(len(before), 0)
        self.assertEqual(set(before), set(after))
        for name in before:
            self.assertFalse(torch.equal(before[name], after[name]), name)

    def test_one_step_of_an_optimizer(self):
        inputs, labels = tiny_models.batch(), torch.tensor([0, 2])
        for model_type in tiny_models.TYPES:
            for widths in ((None, None), (16, 48)):
                with self.subTest(model_type, widths=widths):
                    name = f"{model_type}-{widths[0]}"
                    source, _ = self.make(model_type, classifier=True, widths=widths, name=name)
                    model = load(source, dtype=torch.float32).train()
                    before = factors(model)
                    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
                    first = model(**inputs, labels=labels).loss
                    first.backward()
                    optimizer.step()
                    self.assertLess(model(**inputs, labels=labels).loss.item(), first.item())
                    self.assert_all_changed(before, factors(model))
                    self.check_saved(model, source, inputs)

    def check_saved(self, model, source, inputs):
        target = source.with_name(source.name + "-tuned")
        save(model, target, like=source)
        with torch.no_grad():
            self.assertTrue(torch.equal(load(target)(**inputs).logits, model.eval()(**inputs).logits))

    @unittest.skipUnless(importlib.util.find_spec("accelerate"), "accelerate is not installed")
    def test_trainer(self):
        source, _ = self.make(classifier=True, widths=(16, 48))
        model = load(source, dtype=torch.float32)
        before = factors(model)
        ids = torch.randint(3, tiny_models.VOCAB, (8, 6))
        examples = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row[0] % 3} for row in ids]
        arguments = transformers.TrainingArguments(
            self.folder / "runs", max_steps=3, per_device_train_batch_size=4, report_to=[], use_cpu=True,
            learning_rate=1e-3, save_steps=2, disable_tqdm=True, logging_strategy="no")
        trainer = transformers.Trainer(model, arguments, train_dataset=examples)
        trainer.train()
        self.assert_all_changed(before, factors(model))
        # Its own checkpoints resume, into a model that load() made.
        again = transformers.Trainer(load(source, dtype=torch.float32), arguments, train_dataset=examples)
        again.train(resume_from_checkpoint=True)
        for name, tensor in factors(model).items():
            torch.testing.assert_close(factors(again.model)[name], tensor, rtol=1e-4, atol=1e-5)

    def test_one_step_by_a_loss_of_sentence_transformers(self):
        from sentence_transformers import losses
        source = tiny_models.GOLDEN / "factored"
        model = load_sentence_transformer(source, dtype=torch.float32, device="cpu")  # no dropout: to compare
        before = factors(model)
        loss = losses.CosineSimilarityLoss(model)
        pair = [model.preprocess(texts) for texts in (["the river", "a bank"], ["low rank", "money"])]
        labels = torch.tensor([1.0, 0.0])
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        value = loss([dict(p) for p in pair], labels)
        value.backward()
        optimizer.step()
        self.assertLess(loss([dict(p) for p in pair], labels).item(), value.item())
        self.assert_all_changed(before, factors(model))
        target = self.folder / "tuned"
        save(model, target, like=source)
        texts = ["the small model serves text"]
        again = load_sentence_transformer(target, device="cpu")
        torch.testing.assert_close(again.encode(texts), model.encode(texts), rtol=0, atol=0)

    def test_distillation_brings_embeddings_closer(self):
        spec = importlib.util.spec_from_file_location(
            "distill", tiny_models.ROOT / "tools/pytorch/examples/distill.py")
        distill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(distill)
        dense, compressed = (tiny_models.GOLDEN / name for name in ("mean_normalize", "factored"))
        teacher, student = (load_sentence_transformer(d, torch.float32, "cpu") for d in (dense, compressed))
        embeddings = student[0].model.embeddings.word_embeddings.weight.clone()
        texts = ["the river bank", "low rank", "money serves a model", "text and query", "x"]
        before = distill.cosines(student, teacher, texts).mean()
        distill.distill(student, teacher, texts, steps=20, batch=2, rate=1e-3)
        self.assertGreater(distill.cosines(student, teacher, texts).mean(), before + 0.1)
        self.assertTrue(torch.equal(embeddings, student[0].model.embeddings.word_embeddings.weight))


if __name__ == "__main__":
    unittest.main()
