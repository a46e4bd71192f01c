#!/usr/bin/env python3
"""Times our tokenizer against Hugging Face `tokenizers`, one thread each.

    compare.py MODEL_DIRECTORY|roberta|xlm-r PATH_OF_TOKENIZER_BENCH

roberta and xlm-r stand for tokenizers of the kind, trained here on the sources
of Python's standard library: as many tokens as RoBERTa has, and 30,000. Both
encode the same texts; the ids must be equal, or it fails. Hugging Face
runs `encode_batch` and `encode_batch_fast` (no offsets) on Python strings that
exist already, ours runs Encode over the same lines. Rounds alternate, the
fastest of each counts. The texts are made from the model's own vocabulary, with
the word lengths and the punctuation of prose (see make_texts). Writes
results/tokenizer.json, or tokenizer_roberta.json and tokenizer_xlm-r.json.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import numpy
import tokenizers

TESTS = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS / "bench"), str(TESTS / "engine/text")]
import bench_common


def source_texts():
  """Lines of Python's own sources, English and code."""
  import hf_tokenizers
  lines = hf_tokenizers.training_texts()
  for path in sorted(pathlib.Path(os.__file__).parent.rglob("*.py")):
    if "site-packages" not in path.parts:
      lines += path.read_text(errors="ignore").splitlines()
  return lines[:60000]


def train(kind, directory):
  """Writes the tokenizer.json of a tokenizer of that kind."""
  import hf_tokenizers as made
  if kind == "roberta":
    made_json = made.roberta_json(trained=made.trained_bpe(50000, source_texts))
  else:
    made_json = made.xlmr_json(
        made.precompiled(made.nmt_nfkc()),
        trained=made.trained_unigram(30000, source_texts))
  pathlib.Path(directory, "tokenizer.json").write_text(json.dumps(made_json))


def spell(tokenizer, token):
  """(text, whether it starts a word) of a token of the vocabulary."""
  model = type(tokenizer.model).__name__
  if model == "WordPiece":
    return (token[2:], False) if token.startswith("##") else (token, True)
  if model == "Unigram":
    return token.removeprefix("▁"), token.startswith("▁")
  text = tokenizer.decoder.decode([token])
  return text.removeprefix(" "), text.startswith(" ")


def make_texts(tokenizer, kind, megabytes):
  """Sentences of vocabulary words by Zipf's law, some with rarer endings."""
  rng = random.Random(7)
  vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
  spelled = [spell(tokenizer, t) for t, _ in vocab]
  words = [t for t, starts in spelled if starts and t.isalpha()]
  whole = [t for t in words if t.isascii() and len(t) > 1]
  parts = [t for t, starts in spelled
           if not starts and t.isalpha() and t.isascii()]
  other = [t for t in words if not t.isascii()]
  accented = str.maketrans("aeiounc", "áéíöüñç")
  weights = [1 / (i + 3) for i in range(len(whole))]
  texts, size = [], 0
  while size < megabytes << 20:
    count = max(3, int(rng.lognormvariate(2.9, 0.6)))
    words = rng.choices(whole, weights, k=count)
    for i, word in enumerate(words):
      if rng.random() < 0.06:
        words[i] = word + rng.choice(parts)
      elif rng.random() < 0.03:
        words[i] = str(rng.randrange(3000))
      if kind == "mixed" and rng.random() < 0.3:
        words[i] = (rng.choice(other) if rng.random() < 0.5 else
                    words[i].translate(accented))
      if rng.random() < 0.08:
        words[i] += rng.choice([",", ",", ";", ":", "'s", ")"])
      if rng.random() < 0.1:
        words[i] = words[i].capitalize()
    text = " ".join(words).capitalize() + rng.choice([".", ".", "?", "!"])
    texts.append(text)
    size += len(text.encode())
  return texts


def theirs(tokenizer, encode, texts, batch=64):
  """Seconds, in batches as a server would have them."""
  batches = [texts[i:i + batch] for i in range(0, len(texts), batch)]
  start = time.perf_counter()
  for b in batches:
    encode(b)
  return time.perf_counter() - start


def their_ids(tokenizer, texts):
  flat = []
  for e in tokenizer.encode_batch(texts):
    flat += e.ids
    flat.append(-1)
  return numpy.array(flat, dtype="<i4")


def ours(program, model, path, extra):
  done = subprocess.run([program, model, path, *extra], check=True,
                        stdout=subprocess.PIPE)
  return json.loads(done.stdout)


def measure(args, tokenizer, kind, max_tokens, directory):
  texts = make_texts(tokenizer, kind, args.megabytes)
  path = str(pathlib.Path(directory, "texts"))
  pathlib.Path(path).write_text("\n".join(texts) + "\n")
  tokenizer.no_truncation()
  if max_tokens:
    tokenizer.enable_truncation(max_tokens)
  extra = ["--max-tokens", str(max_tokens)]
  ids = str(pathlib.Path(directory, "ids"))
  ours(args.program, args.model, path, [*extra, "--ids", ids, "--repeat", "1"])
  if not numpy.array_equal(numpy.fromfile(ids, "<i4"),
                           their_ids(tokenizer, texts)):
    sys.exit(f"{kind}: the ids differ")
  best = {}
  for _ in range(args.rounds):
    row = ours(args.program, args.model, path, extra)
    with_offsets = ours(args.program, args.model, path, [*extra, "--offsets"])
    times = {"ours": row["seconds"], "ours, offsets": with_offsets["seconds"],
             "encode_batch": theirs(tokenizer, tokenizer.encode_batch, texts),
             "encode_batch_fast": theirs(
                 tokenizer, tokenizer.encode_batch_fast, texts)}
    for name, seconds in times.items():
      best[name] = min(best.get(name, 1e30), seconds)
  return [{"texts": kind, "max_tokens": max_tokens, "program": name,
           "seconds": round(s, 5), "tokens": row["tokens"],
           "bytes": row["bytes"],
           "mb_per_s": round(row["bytes"] / s / 1e6, 2),
           "tokens_per_s": round(row["tokens"] / s),
           "speedup_over_encode_batch": round(best["encode_batch"] / s, 2),
           "load_seconds": round(row["load_seconds"], 4)}
          for name, s in best.items()]


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("model", help="a directory, roberta or xlm-r")
  parser.add_argument("program")
  parser.add_argument("--megabytes", type=int, default=4)
  parser.add_argument("--rounds", type=int, default=3)
  args = parser.parse_args()
  name = pathlib.Path(args.model).name
  trained = name in ("roberta", "xlm-r")
  rows = []
  with tempfile.TemporaryDirectory() as directory:
    if trained:
      train(name, directory)
      args.model = directory
    tokenizer = tokenizers.Tokenizer.from_file(f"{args.model}/tokenizer.json")
    tokenizer.no_padding()
    for kind, max_tokens in (("prose", 0), ("prose", 16), ("mixed", 0)):
      rows += measure(args, tokenizer, kind, max_tokens, directory)
  print(f"tokenizers {tokenizers.__version__}, one thread, equal ids, "
        f"model {name}")
  print(f"{'texts':6} {'max':>4} {'program':18} {'MB/s':>8} {'Mtokens/s':>10} "
        f"{'speedup':>8}")
  for r in rows:
    print(f"{r['texts']:6} {r['max_tokens'] or '-':>4} {r['program']:18} "
          f"{r['mb_per_s']:8.1f} {r['tokens_per_s'] / 1e6:10.2f} "
          f"{r['speedup_over_encode_batch']:8.1f}")
  bench_common.write_result(f"tokenizer_{name}" if trained else "tokenizer", {
      "tokenizers": tokenizers.__version__, "threads": 1,
      "model": name, "rows": rows})


if __name__ == "__main__":
  main()
