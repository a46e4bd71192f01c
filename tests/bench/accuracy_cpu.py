#!/usr/bin/env python3
"""What svdserve answers over gRPC against sentence-transformers in fp32, on the same weights.

    tests/bench/accuracy_cpu.py --model models/minilm \\
        --svdserve build/release/server/svdserve --svdctl build/release/tools/svdctl

Starts one server per --compute, sends varied texts through `svdctl embed`,
and prints the minimum, first percentile and mean of the cosines. Fails if a
minimum is below what is promised: 0.99999 in float32, 0.999 in bfloat16. A
compressed model is compared with PyTorch on W = U·V. Needs sentence-transformers.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import bench_common
import corpus
from running_server import RunningServer

REQUIRED = {"float32": 0.99999, "bfloat16": 0.999}


def served_embeddings(args, compute, texts):
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        inputs, outputs = scratch / "texts.jsonl", scratch / "vectors.jsonl"
        inputs.write_text("".join(json.dumps(text) + "\n" for text in texts))
        with RunningServer(args.svdserve, args.model, dtype=compute,
                           threads=args.threads) as server:
            subprocess.run([args.svdctl, "embed", "--server", server.address, "--truncate", "--normalize",
                            "--input", inputs, "--output", outputs], check=True)
        rows = [json.loads(line) for line in outputs.read_text().splitlines()]
    errors = [row for row in rows if "error" in row]
    if errors or [row["index"] for row in rows] != list(range(len(texts))):
        raise SystemExit(f"{len(rows)} answers for {len(texts)} texts, {len(errors)} errors: {errors[:1]}")
    return [row["embedding"] for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--svdserve", required=True)
    parser.add_argument("--svdctl", required=True)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compute", nargs="+", choices=REQUIRED, default=list(REQUIRED))
    parser.add_argument("--result", default="accuracy_cpu", help="name of the result file")
    args = parser.parse_args()

    texts = corpus.make_texts(args.texts)
    expected = bench_common.sentence_embeddings(args.model, texts, args.threads)
    result = {"model": pathlib.Path(args.model).name, "against": "sentence-transformers, fp32",
              "cosine": {}}
    failed = []
    for compute in args.compute:
        summary = bench_common.cosine_summary(served_embeddings(args, compute, texts), expected)
        result["cosine"][compute] = summary | {"required_min": REQUIRED[compute]}
        if not summary["min"] >= REQUIRED[compute]:  # NaN fails too
            failed.append(compute)
    print(json.dumps(result, indent=1))
    bench_common.write_result(args.result, result)
    if failed:
        raise SystemExit("below the required cosine: " + ", ".join(failed))


if __name__ == "__main__":
    main()
