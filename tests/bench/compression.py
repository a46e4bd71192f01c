#!/usr/bin/env python3
"""What each method of `svdctl compress` keeps, on texts that calibration never saw.

    tests/bench/compression.py --svdctl build/serve/tools/svdctl --dense build/models/all-MiniLM-L6-v2

Compresses the model by each method to each ratio and compares it with the dense one by `svdctl evaluate`. The texts:
sentences of Python's own help topics (the module pydoc_data, on every machine with Python) and the texts of corpus.py,
less their prose, which is of licences that the default calibration may have read.
"""

import argparse
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

import bench_common
import corpus

TOPICS = 800  # texts of each kind
MIXED = 200


def topic_sentences():
    """Prose of 40 to 400 characters, in the topics' order, each once."""
    from pydoc_data import topics
    sentences = {}
    for name in sorted(topics.topics):
        text = re.sub(r"[=*~^-]{3,}", " ", topics.topics[name])  # lines below headings
        text = re.sub(r"\s+", " ", text)
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", text):
            letters = sum(c.isalpha() or c == " " for c in sentence)
            if 40 <= len(sentence) <= 400 and letters >= 0.85 * len(sentence):
                sentences[sentence] = None
    return list(sentences)


def unseen_texts():
    sentences = topic_sentences()
    if len(sentences) < TOPICS:
        sys.exit(f"pydoc_data holds {len(sentences)} sentences; {TOPICS} are wanted")
    step = len(sentences) / TOPICS
    # Three in five of corpus.py's are prose.
    mixed = [text for i, text in enumerate(corpus.make_texts(MIXED * 5 // 2)) if i % 5 >= 3]
    return [sentences[int(i * step)] for i in range(TOPICS)] + mixed[:MIXED]


def compress(args, method, ratio, output):
    """Processor seconds that it took: what else the machine does does not change them."""
    command = [args.svdctl, "compress", args.dense, output, "--method", method, "--ratio", str(ratio)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        sys.exit(f"compress --method {method} --ratio {ratio} failed with exit code {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def row_of(method, ratio, seconds, model):
    fidelity = model["embedding"]
    return {
        "method": method,
        "ratio": ratio,
        "kept": model["ratio"],
        "mean_cosine": fidelity["cosine"]["mean"],
        "p5_cosine": fidelity["cosine"]["p5"],
        "recall_at_10": fidelity["neighbours"]["recall_at_10"],
        "spearman": fidelity["similarities"]["spearman"],
        "activation_bytes_per_token": round(model["activation_bytes_per_token"]),
        "processor_seconds": round(seconds, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--svdctl", type=pathlib.Path, required=True)
    parser.add_argument("--dense", required=True)
    parser.add_argument("--methods", nargs="+", default=["svd", "whitened", "component", "auto"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.7, 0.5, 0.35])
    parser.add_argument("--html", type=pathlib.Path, help="where svdctl's page of all models goes")
    args = parser.parse_args()
    args.svdctl = args.svdctl.resolve()

    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        texts = scratch / "texts.txt"
        texts.write_text("\n".join(unseen_texts()) + "\n", encoding="utf-8")
        runs = [(method, ratio) for ratio in args.ratios for method in args.methods]
        outputs = [scratch / f"{method}-{ratio}" for method, ratio in runs]
        seconds = [compress(args, *run, output) for run, output in zip(runs, outputs)]
        command = [args.svdctl, "evaluate", args.dense, *outputs, "--text", texts]
        if args.html:
            command += ["--html", args.html]
        report = bench_common.run_json(command)
    facts = report["texts"]
    bench_common.write_result("compression", {
        "model": pathlib.Path(args.dense).name,
        "dense_activation_bytes_per_token": round(report["dense"]["activation_bytes_per_token"]),
        "texts": {"count": facts["count"], "tokens": facts["tokens"], "truncated": facts["truncated"],
                  "of": f"{TOPICS} sentences of Python {sys.version_info.major}.{sys.version_info.minor}'s help topics "
                        f"(pydoc_data), {MIXED} texts of corpus.py in twenty languages, numbers and symbols"},
        "results": [row_of(*run, took, model) for run, took, model in zip(runs, seconds, report["models"])],
    })


if __name__ == "__main__":
    main()
