#!/usr/bin/env python3
"""RoBERTa, XLM-R and DistilBERT on a new user's way: svdctl compress, svdserve, svdctl embed.

    tests/e2e/architectures.py --svdserve build/release/server/svdserve --svdctl build/release/tools/svdctl

Makes a small random checkpoint of each with transformers, compresses it, serves both, embeds varied texts over
gRPC and compares with sentence-transformers in fp32 on the same weights, by tools/pytorch where they are factors:
the least cosine must be 0.99999. Exits with 77, which ctest shows as skipped, where Python lacks transformers.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "golden"), str(TESTS / "bench")]
try:
    import generate
    from safetensors.torch import load_file
except ImportError as error:
    print(f"skipped: {error}")
    raise SystemExit(77) from error
import bench_common
import corpus
from running_server import RunningServer

LONGEST = 128  # tokens
REQUIRED = 0.99999
BERT_KEYS = dict(hidden_size=128, num_attention_heads=4, num_hidden_layers=3, intermediate_size=256,
                 layer_norm_eps=1e-5)
MODELS = [("roberta", generate.ROBERTA, BERT_KEYS | dict(max_position_embeddings=LONGEST + 2)),
          ("xlm-roberta", generate.XLM_ROBERTA, BERT_KEYS | dict(max_position_embeddings=LONGEST + 2)),
          ("distilbert", generate.DISTILBERT, dict(dim=128, n_heads=4, n_layers=3, hidden_dim=256,
                                                   max_position_embeddings=LONGEST))]


def make_model(folder, family, sizes):
    """A directory as transformers saves it: mean pooling, as sentence-transformers adds."""
    folder.mkdir()
    family.tokenizer(folder, LONGEST).save_pretrained(folder)
    model = family.encoder(family.config(**family.sizes | sizes), **family.pooler)
    generate.randomize(model, seed=len(folder.name))
    model.save_pretrained(folder)


def served_embeddings(args, model, texts, scratch):
    inputs, outputs = scratch / "texts.jsonl", scratch / "vectors.jsonl"
    inputs.write_text("".join(json.dumps(text) + "\n" for text in texts))
    with RunningServer(args.svdserve, model, dtype="float32", threads=2) as server:
        subprocess.run([args.svdctl, "embed", "--server", server.address, "--truncate", "--normalize",
                        "--input", inputs, "--output", outputs], check=True)
    rows = [json.loads(line) for line in outputs.read_text().splitlines()]
    if [row["index"] for row in rows] != list(range(len(texts))):
        raise SystemExit(f"{model}: {len(rows)} answers for {len(texts)} texts")
    return [row["embedding"] for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--svdserve", required=True)
    parser.add_argument("--svdctl", required=True)
    parser.add_argument("--texts", type=int, default=200)
    args = parser.parse_args()

    texts = corpus.make_texts(args.texts)
    far = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        for name, family, sizes in MODELS:
            dense, half = scratch / name, scratch / f"{name}-half"
            make_model(dense, family, sizes)
            subprocess.run([args.svdctl, "compress", dense, half, "--ratio", "0.5"], check=True,
                           stdout=subprocess.DEVNULL)
            if not any(tensor.endswith(".U") for tensor in load_file(half / "model.safetensors")):
                raise SystemExit(f"{half}: nothing is factored")
            for model in [dense, half]:
                summary = bench_common.cosine_summary(served_embeddings(args, model, texts, scratch),
                                                      bench_common.sentence_embeddings(model, texts, 2))
                print(f"{model.name:18} {summary}")
                if not summary["min"] >= REQUIRED:  # NaN fails too
                    far.append(model.name)
    if far:
        raise SystemExit(f"below a cosine of {REQUIRED}: " + ", ".join(far))


if __name__ == "__main__":
    main()
