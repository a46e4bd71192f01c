#!/usr/bin/env python3
"""Times our tokenizer against Hugging Face `tokenizers`, one thread each.

    compare.py PATH_OF_TOKENIZER_BENCH DIRECTORY...

Each directory holds a tokenizer.json; tests/engine/text/real_vocabularies.py
makes those of RoBERTa and XLM-R. Both encode the same texts; the ids must be
equal, or it fails. Hugging Face runs `encode_batch` and `encode_batch_fast` (no
offsets) on Python strings that exist already, ours runs Encode over the same
lines. Times are processor time; rounds alternate, the fastest of each counts.
The texts are made from the model's own vocabulary, with the word lengths and the
punctuation of prose (see make_texts). Loading is timed, too, with the memory
that is resident more after it, each in a process of its own. Writes
results/tokenizer.json.
"""

import argparse
import json
import multiprocessing
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
sys.path.insert(0, str(TESTS / "bench"))
import bench_common


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
  start = time.process_time()
  for b in batches:
    encode(b)
  return time.process_time() - start


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


def measure(args, model, tokenizer, kind, max_tokens, directory):
  texts = make_texts(tokenizer, kind, args.megabytes)
  path = str(pathlib.Path(directory, "texts"))
  pathlib.Path(path).write_text("\n".join(texts) + "\n")
  tokenizer.no_truncation()
  if max_tokens:
    tokenizer.enable_truncation(max_tokens)
  extra = ["--max-tokens", str(max_tokens)]
  ids = str(pathlib.Path(directory, "ids"))
  ours(args.program, model, path, [*extra, "--ids", ids, "--repeat", "1"])
  if not numpy.array_equal(numpy.fromfile(ids, "<i4"),
                           their_ids(tokenizer, texts)):
    sys.exit(f"{model}, {kind}: the ids differ")
  best = {}
  for _ in range(args.rounds):
    row = ours(args.program, model, path, extra)
    with_offsets = ours(args.program, model, path, [*extra, "--offsets"])
    times = {"ours": row["seconds"], "ours, offsets": with_offsets["seconds"],
             "encode_batch": theirs(tokenizer, tokenizer.encode_batch, texts),
             "encode_batch_fast": theirs(
                 tokenizer, tokenizer.encode_batch_fast, texts)}
    for name, seconds in times.items():
      best[name] = min(best.get(name, 1e30), seconds)
  return [{"model": model.name, "texts": kind, "max_tokens": max_tokens, "program": name,
           "seconds": round(s, 5), "tokens": row["tokens"],
           "bytes": row["bytes"],
           "mb_per_s": round(row["bytes"] / s / 1e6, 2),
           "tokens_per_s": round(row["tokens"] / s),
           "speedup_over_encode_batch": round(best["encode_batch"] / s, 2)}
          for name, s in best.items()]


def resident_bytes():
  pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
  return int(pages) * os.sysconf("SC_PAGE_SIZE")


def their_load(model):
  before, start = resident_bytes(), time.process_time()
  tokenizer = tokenizers.Tokenizer.from_file(f"{model}/tokenizer.json")
  seconds = time.process_time() - start
  return {"load_seconds": seconds, "load_bytes": resident_bytes() - before,
          "tokens": tokenizer.get_vocab_size()}


def measure_load(args, model, directory):
  """The least time and memory of both, and the size of the vocabulary."""
  one = pathlib.Path(directory, "one")
  one.write_text("a text\n")
  rows = []
  for _ in range(args.rounds):
    with multiprocessing.get_context("spawn").Pool(1) as process:
      rows.append((ours(args.program, model, one, []),
                   process.apply(their_load, (model,))))
  least = lambda i, key: min(row[i][key] for row in rows)
  return {"model": model.name, "tokens": rows[0][1]["tokens"],
          "ours_seconds": round(least(0, "load_seconds"), 4),
          "ours_bytes": least(0, "load_bytes"),
          "tokenizers_seconds": round(least(1, "load_seconds"), 4),
          "tokenizers_bytes": least(1, "load_bytes")}


def measure_model(args, model):
  tokenizer = tokenizers.Tokenizer.from_file(f"{model}/tokenizer.json")
  tokenizer.no_padding()
  with tempfile.TemporaryDirectory() as directory:
    loads = measure_load(args, model, directory)
    rows = []
    for kind, max_tokens in (("prose", 0), ("prose", 16), ("mixed", 0)):
      rows += measure(args, model, tokenizer, kind, max_tokens, directory)
  return loads, rows


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("program")
  parser.add_argument("models", nargs="+", type=pathlib.Path)
  parser.add_argument("--megabytes", type=int, default=4)
  parser.add_argument("--rounds", type=int, default=3)
  args = parser.parse_args()
  loads, rows = [], []
  for model in args.models:
    load, of_model = measure_model(args, model)
    loads.append(load)
    rows += of_model
  print(f"tokenizers {tokenizers.__version__}, one thread, equal ids")
  for load in loads:
    print(load)
  print(f"{'model':24} {'texts':6} {'max':>4} {'program':18} {'MB/s':>8} "
        f"{'Mtokens/s':>10} {'speedup':>8}")
  for r in rows:
    print(f"{r['model']:24} {r['texts']:6} {r['max_tokens'] or '-':>4} "
          f"{r['program']:18} {r['mb_per_s']:8.1f} "
          f"{r['tokens_per_s'] / 1e6:10.2f} "
          f"{r['speedup_over_encode_batch']:8.1f}")
  bench_common.write_result("tokenizer", {
      "tokenizers": tokenizers.__version__, "threads": 1, "loads": loads,
      "rows": rows})


if __name__ == "__main__":
  main()
