#!/usr/bin/env python3
"""What tools/quickstart sends, and how it shows the replies.

  quickstart_report.py sentences                     the inputs, as JSON lines
  quickstart_report.py embed HALF DENSE ESTIMATE [--expect-order]
  quickstart_report.py classify HALF DENSE ESTIMATE

HALF and DENSE are the output of `svdctl embed` or `svdctl classify` of the
compressed and of the dense model, ESTIMATE that of `svdctl estimate`. With --expect-order it fails unless every
related pair is closer than every unrelated one.
"""

import itertools
import json
import math
import sys

# Each pair says nearly the same; different pairs have nothing in common.
PAIRS = [
    ("A man is playing a guitar on the stage.",
     "Someone performs music with a guitar in front of an audience."),
    ("The central bank raised interest rates again.",
     "Borrowing becomes more expensive after the bank's rate increase."),
    ("How do I reset my password?",
     "I forgot my login credentials and need to recover my account."),
    ("Heavy rain caused floods in the northern valleys.",
     "Rivers burst their banks after days of storms in the north."),
    ("The recipe needs two eggs and a cup of flour.",
     "Mix flour with a couple of eggs to make the dough."),
]
SENTENCES = [sentence for pair in PAIRS for sentence in pair]


def read(path):
    with open(path, encoding="utf-8") as file:
        results = [json.loads(line) for line in file]
    for result in results:
        if "error" in result:
            sys.exit(f"input {result['index']} failed: {result['error']}")
    if len(results) != len(SENTENCES):
        sys.exit(f"{path} has {len(results)} results, not {len(SENTENCES)}")
    return results


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def show_costs(results, estimates):
    """What the texts were charged, and what a full batch would be."""
    tokens = sum(r["tokens"] for r in results)
    charged = sum(r["activation_bytes"] for r in results)
    dense = sum(r["dense_activation_bytes"] for r in results)
    fixed = estimates[0]["fixed_activation_bytes"]
    print(f"\n{len(results)} texts, {tokens} tokens")
    print(f"activation bytes charged for them  {charged:>13,}")
    print(f"a batch's own, whatever its size   {fixed:>13,}")
    print(f"an ordinary dense forward needs    {dense:>13,}")

    # Charges are additive: so much an input and so much a token.
    short = min(estimates, key=lambda e: e["tokens"])
    long = max(estimates, key=lambda e: e["tokens"])
    if long["tokens"] == short["tokens"]:
        return
    per_token = ((long["activation_bytes"] - short["activation_bytes"])
                 / (long["tokens"] - short["tokens"]))
    per_input = short["activation_bytes"] - per_token * short["tokens"]
    full = fixed + 32 * per_input + 32 * 256 * per_token
    full_dense = 32 * 256 * dense / tokens
    print(f"for 32 texts of 256 tokens: {full / 2**20:.1f} MiB instead of "
          f"{full_dense / 2**20:.1f} MiB ({full / full_dense:.1%})")


def show_embeddings(half, dense, expect_order):
    vectors = [r["embedding"] for r in half]
    print("\ncosine of related texts (compressed model):")
    related = []
    for i, (first, second) in enumerate(PAIRS):
        related.append(cosine(vectors[2 * i], vectors[2 * i + 1]))
        print(f"  {related[-1]:6.3f}  {first}\n          {second}")
    unrelated = [cosine(vectors[a], vectors[b])
                 for a, b in itertools.combinations(range(len(vectors)), 2)
                 if a // 2 != b // 2]
    in_order = min(related) > max(unrelated)
    print(f"cosine of the {len(unrelated)} unrelated pairs: "
          f"{min(unrelated):.3f} to {max(unrelated):.3f}")
    print("every related pair is closer than every unrelated one: "
          + ("yes" if in_order else "no"))

    print("\ncosine of each compressed embedding with the dense one:")
    kept = [cosine(a["embedding"], b["embedding"]) for a, b in zip(half, dense)]
    for value, sentence in zip(kept, SENTENCES):
        print(f"  {value:6.3f}  {sentence}")
    print(f"  {sum(kept) / len(kept):6.3f}  mean")
    if expect_order and not in_order:
        sys.exit("quickstart: the compressed model lost the texts' meaning")


def show_labels(half, dense):
    print("\nhighest label, compressed | dense:")
    for a, b, sentence in zip(half, dense, SENTENCES):
        tops = [f"{r['scores'][0]['label']} {r['scores'][0]['score']:.3f}"
                for r in (a, b)]
        print(f"  {tops[0]} | {tops[1]}  {sentence}")


def main(command, *arguments):
    if command == "sentences":
        for sentence in SENTENCES:
            print(json.dumps(sentence))
        return
    half, dense = read(arguments[0]), read(arguments[1])
    if command == "classify":
        show_labels(half, dense)
    else:
        show_embeddings(half, dense, "--expect-order" in arguments)
    show_costs(half, read(arguments[2]))


if __name__ == "__main__":
    main(*sys.argv[1:])
