#!/usr/bin/env python3
"""Teaches a compressed model the embeddings of its dense one, on plain text.

    PYTHONPATH=tools/pytorch python3 tools/pytorch/examples/distill.py --dense models/minilm \\
        --compressed models/minilm-half --text train.txt --held-out other.txt --out models/minilm-tuned

Files hold one text a line. The loss is 1 - cosine of the two models' sentence
embeddings (of MiniLM: mean-pooled); the encoder's layers learn, embeddings stay.
Prints the cosine on the held-out text before and after.
"""

import argparse
import pathlib
import random
import sys
import time

import torch
from sentence_transformers.util import batch_to_device

import svdserve_pytorch


def read_lines(path):
    lines = [line.strip() for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        sys.exit(f"{path}: has no text")
    return lines


def embed(model, texts):
    """[texts, width], of unit length."""
    features = batch_to_device(model.preprocess(texts), model.device)
    return torch.nn.functional.normalize(model(features)["sentence_embedding"], dim=1)


def batches(texts, size, generator):
    """Random texts without end, those of a batch of similar length: little padding."""
    while True:
        order = sorted(generator.sample(texts, len(texts)), key=len)
        cut = [order[i:i + size] for i in range(0, len(order), size)]
        yield from generator.sample(cut, len(cut))


@torch.inference_mode()
def cosines(student, teacher, texts):
    """Of each text's embeddings by the two models: [texts]."""
    parts = [texts[i:i + 32] for i in range(0, len(texts), 32)]
    return torch.cat([(embed(student, part) * embed(teacher, part)).sum(1) for part in parts])


def distill(student, teacher, texts, steps, batch, rate, seed=1):
    """Trains the layers of `student` in place for `steps` of `batch` texts. Adam; the
    rate rises over a tenth of the steps, then falls linearly to nothing."""
    generator = random.Random(seed)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_("embeddings." not in name)
    learning = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (steps / 10), (steps - step) / (steps * 0.9)))
    start = time.monotonic()
    for step, part in zip(range(1, steps + 1), batches(texts, batch, generator)):
        with torch.inference_mode():
            wanted = embed(teacher, part)
        loss = 1 - (embed(student, part) * wanted.clone()).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            print(f"step {step}/{steps}: loss {loss.item():.4f}, {time.monotonic() - start:.0f} s", flush=True)


def describe(cosine):
    return f"mean {cosine.mean():.4f}, 5th percentile {cosine.quantile(0.05):.4f}, least {cosine.min():.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dense", required=True)
    parser.add_argument("--compressed", required=True)
    parser.add_argument("--text", required=True, help="to learn from")
    parser.add_argument("--held-out", required=True, help="to measure on")
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-4)
    args = parser.parse_args()
    texts, held_out = read_lines(args.text), read_lines(args.held_out)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Both without dropout: load() gives them in .eval(), which keeps gradients.
    teacher, student = (svdserve_pytorch.load_sentence_transformer(d, torch.float32, device)
                        for d in (args.dense, args.compressed))
    print(f"before: {describe(cosines(student, teacher, held_out))}")
    distill(student, teacher, texts, args.steps, args.batch, args.rate)
    print(f"after: {describe(cosines(student, teacher, held_out))}")
    svdserve_pytorch.save(student, args.out, like=args.compressed)


if __name__ == "__main__":
    main()
