#!/usr/bin/env python3
"""What compression does to embeddings: compressed against dense, both in PyTorch fp32.

    tests/bench/quality.py --dense models/minilm --compressed models/minilm-r50

Cosine of each embedding with its dense one, and the rank correlation of all
pairwise similarities: whether search results would keep their order.
"""

import argparse
import json
import pathlib

import numpy as np

import bench_common
import corpus


def rank_correlation(dense, compressed):
    """Spearman's, over the similarities of all pairs of texts."""
    upper = np.triu_indices(len(dense), 1)
    ranks = [np.argsort(np.argsort((v @ v.T)[upper])) for v in (dense, compressed)]
    return float(np.corrcoef(*ranks)[0, 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dense", required=True)
    parser.add_argument("--compressed", required=True)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    texts = corpus.make_texts(args.texts)
    dense = bench_common.sentence_embeddings(args.dense, texts, args.threads)
    compressed = bench_common.sentence_embeddings(args.compressed, texts, args.threads)
    report = json.loads((pathlib.Path(args.compressed) / "compression.json").read_text())
    result = {
        "method": report["method"],
        "ratio": report["ratio"],
        "ranks": report["ranks"],
        "cosine": bench_common.cosine_summary(compressed, dense),
        "rank_correlation_of_similarities": rank_correlation(dense, compressed),
    }
    print(json.dumps(result, indent=1))
    bench_common.write_result("quality", result)


if __name__ == "__main__":
    main()
