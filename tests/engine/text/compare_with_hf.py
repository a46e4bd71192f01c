#!/usr/bin/env python3
"""Holds our tokenizer against Hugging Face `tokenizers`, id by id.

    compare_with_hf.py PATH_OF_ENCODE_CASES [--quick] [DIRECTORY...]

Makes vocabularies and a large varied corpus (the same on every run), encodes it
with both and fails on the first differences in ids, type ids or offsets. Where
SVDSERVE_MODEL names a model's directory, its own tokenizer is compared too.
Directories that are named are compared instead of the vocabularies made here
(real_vocabularies.py makes some of the size of published ones): the corpus, and
every token of theirs, by tokenizer.json and by the vocabulary files beside it.
Exits with 77 (skipped) where `tokenizers` is not installed.
"""

import argparse
import itertools
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "true"  # it is only the reference here
try:
  import tokenizers
  import hf_tokenizers as made
except ImportError as e:
  print(f"SKIPPED: {e}")
  sys.exit(77)
from hf_corpus import build_corpus

SPECIAL, TRUNCATE, LEFT, PAIR = 1, 2, 4, 8


def fail(message):
  print(f"FAILED: {message}")
  sys.exit(1)


class Comparison:

  def __init__(self, program):
    self.program = program
    self.cases = 0
    self.tokens = 0

  def ours(self, directory, cases):
    data = bytearray()
    for flags, limit, text, pair in cases:
      data += struct.pack("<4I", flags, limit, len(text), len(pair or b""))
      data += text + (pair or b"")
    done = subprocess.run([self.program, directory], input=bytes(data),
                          stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
      fail(f"encode_cases ended with {done.returncode}")
    numbers, at, out = memoryview(done.stdout), 0, done.stdout
    for _ in cases:
      (n,) = struct.unpack_from("<I", out, at)
      at += 4
      if n == 0xFFFFFFFF:
        (n,) = struct.unpack_from("<I", out, at)
        yield out[at + 4:at + 4 + n].decode()
        at += 4 + n
      else:
        yield bytes(numbers[at:at + 16 * n])
        at += 16 * n

  @staticmethod
  def theirs(tokenizer, cases):
    """Encodes runs of cases with equal options at once."""
    for (flags, limit), run in itertools.groupby(cases, lambda c: c[:2]):
      if flags & TRUNCATE:
        side = "left" if flags & LEFT else "right"
        tokenizer.enable_truncation(limit, direction=side)
      else:
        tokenizer.no_truncation()
      texts = [t.decode(errors="replace") if p is None else
               (t.decode(errors="replace"), p.decode(errors="replace"))
               for _, _, t, p in run]
      for e in tokenizer.encode_batch(texts, add_special_tokens=bool(
          flags & SPECIAL)):
        rows = [x for row in zip(e.ids, e.type_ids, e.offsets)
                for x in (row[0], row[1], *row[2])]
        yield struct.pack(f"<{len(rows)}I", *rows)

  def run(self, name, directory, cases, reference=None):
    """Ours of `directory` against the tokenizer.json of `reference`."""
    start = time.time()
    tokenizer = tokenizers.Tokenizer.from_file(
        f"{reference or directory}/tokenizer.json")
    tokenizer.no_padding()
    tokens = bad = 0
    for at in range(0, len(cases), 20000):
      chunk = cases[at:at + 20000]
      for case, a, b in zip(chunk, self.ours(directory, chunk),
                            self.theirs(tokenizer, chunk)):
        tokens += len(b) // 16
        if a != b:
          bad += 1
          if bad <= 5:
            self.explain(tokenizer, case, a, b)
    print(f"{name}: {len(cases)} cases, {tokens} tokens, {bad} differences, "
          f"{time.time() - start:.1f} s", flush=True)
    self.cases += len(cases)
    self.tokens += tokens
    return bad

  @staticmethod
  def explain(tokenizer, case, ours, theirs):
    print(f"  case flags={case[0]} max={case[1]} text={case[2][:300]!r} "
          f"pair={(case[3] or b'')[:100]!r}")
    for who, data in (("ours", ours), ("theirs", theirs)):
      if isinstance(data, str):
        print(f"    {who}: error {data}")
        continue
      rows = list(struct.iter_unpack("<4I", data))[:40]
      print(f"    {who}:", [(tokenizer.id_to_token(i), t, (b, e))
                            for i, t, b, e in rows])


def plain(texts):
  return [(SPECIAL, 0, t, None) for t in texts]


def truncated(rng, texts, count, least=4):
  """Pairs and singles with all sides and many limits, from `least` on.

  That is how many special tokens go with a pair: less is an error of ours.
  """
  short = [t for t in texts if len(t) < 4000]
  out = []
  for _ in range(count):
    flags = rng.choice([0, SPECIAL]) | rng.choice([0, LEFT]) | rng.choice(
        [0, TRUNCATE, TRUNCATE])
    limit = rng.choice(
        [least, 4, 5, 7, 8, 16, 33, 64, 128]) if flags & TRUNCATE else 0
    out.append((flags, limit))
  out.sort()  # equal options side by side
  cases = []
  for flags, limit in out:
    pair = rng.choice(short) if rng.random() < 0.7 else None
    cases.append((flags | (PAIR if pair is not None else 0), limit,
                  rng.choice(short), pair))
  return cases


def vocabulary_texts(rng, directory):
  """Each token of the vocabulary: in words of one to four, and in sentences."""
  tokenizer = tokenizers.Tokenizer.from_file(f"{directory}/tokenizer.json")
  tokens = [t.removeprefix("##") for t in tokenizer.get_vocab()]
  if tokenizer.decoder is not None:
    tokens = [tokenizer.decoder.decode([t]) for t in tokens]
  tokens.sort()  # the dictionary has another order each time
  rng.shuffle(tokens)
  for at in range(0, len(tokens), 8):
    a = tokens[at:at + 8]
    yield " ".join(a).encode()
    yield " ".join(["".join(a[:4]), "".join(a[4:6]), *a[6:7] * 2]).encode()


def compare_directory(comparison, directory, rng, corpus, n):
  """With its tokenizer.json, and without where other files will do."""
  cases = plain(corpus) + truncated(rng, corpus[:9000], n)
  cases += plain(vocabulary_texts(rng, directory))
  bad = comparison.run(directory.name, directory, cases)
  if (directory / "vocab.txt").exists() or (directory / "merges.txt").exists():
    with tempfile.TemporaryDirectory() as files:
      shutil.copytree(directory, files, dirs_exist_ok=True,
                      ignore=shutil.ignore_patterns("tokenizer.json"))
      bad += comparison.run(f"{directory.name} without tokenizer.json", files,
                            cases, directory)
  return bad


def word_piece_setups(rng, corpus, small, tagged, n):
  vocab = made.build_vocab(rng)
  make = made.tokenizer_json
  return [
      ("uncased", make(vocab),
       plain(corpus) + truncated(rng, corpus[:9000], n, 3)),
      ("cased", make(vocab, {"lowercase": False}, post="bert"),
       plain(small) + truncated(rng, small, n // 4, 3)),
      ("strip accents only", make(
          vocab, {"lowercase": False, "strip_accents": True}), plain(small)),
      ("keep accents", make(vocab, {"strip_accents": False}), plain(small)),
      ("no cleaning", make(
          vocab, {"clean_text": False, "handle_chinese_chars": False},
          post="none"), plain(small) + truncated(rng, small, n // 4, 3)),
      ("no normalizer", make(vocab, False), plain(small)),
      ("short words, no prefix", make(
          made.build_vocab(rng, ""), prefix="", longest=7), plain(small)),
      ("added tokens", make(vocab, None, made.ADDED),
       plain(tagged + small[:3000]) + truncated(rng, tagged, n // 2, 3)),
      ("added tokens, cased", make(
          vocab, {"lowercase": False, "clean_text": False}, made.ADDED),
       plain(tagged) + truncated(rng, tagged, n // 4, 3)),
  ]


def bpe_setups(rng, corpus, small, tagged, n):
  make = made.roberta_json
  return [
      ("roberta", make(), plain(corpus) + truncated(rng, corpus[:9000], n)),
      ("roberta, prefix space", make(prefix=True),
       plain(small) + truncated(rng, small, n // 2)),
      ("roberta, offsets as they are", make(prefix=True, trim=False),
       plain(small) + truncated(rng, small, n // 4)),
      ("roberta, prefix space trimmed, merges as text", make(
          prefix=True, keep=False, merges_as_text=True),
       plain(small) + truncated(rng, small, n // 4)),
      ("bpe, no regex, whole words, template", make(
          use_regex=False, ignore_merges=True, post="template"),
       plain(small) + truncated(rng, small, n // 4)),
      ("bpe, unknown bytes", make(unk_token="<unk>", lacking="aeÃĠĂ"),
       plain(small)),
      ("bpe, unknown bytes fused", make(
          unk_token="<unk>", fuse_unk=True, lacking="aeÃĠĂ"), plain(small)),
      ("roberta, added tokens", make(tokens=made.ADDED),
       plain(tagged + small[:3000]) + truncated(rng, tagged, n // 2)),
      ("roberta, added tokens, prefix space", make(
          prefix=True, tokens=made.ADDED),
       plain(tagged) + truncated(rng, tagged, n // 2)),
  ]


def unigram_setups(rng, corpus, small, tagged, n):
  make, nfkc = made.xlmr_json, made.precompiled(made.nmt_nfkc())
  spaces = made.replace({"Regex": " {2,}"}, "▁")
  strip = {"type": "Strip", "strip_left": False, "strip_right": True}
  split = {"type": "Sequence", "pretokenizers": [
      {"type": "WhitespaceSplit"}, made.metaspace()]}
  old = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True,
         "str_rep": "▁"}
  bytes_ = [(f"<0x{b:02X}>", -20.0 - b) for b in range(256)]
  return [
      ("xlm-r", make(nfkc), plain(corpus) + truncated(rng, corpus[:9000], n)),
      ("xlm-r, whitespace split", make(nfkc, split),
       plain(small) + truncated(rng, small, n // 2)),
      ("xlm-r, converted", make(made.sequence(nfkc, strip, spaces), old),
       plain(small) + truncated(rng, small, n // 2)),
      ("unigram, clusters", make(made.precompiled(made.every_byte_map())),
       plain(small)),
      ("unigram, two maps and replacements", make(made.sequence(
          made.replace({"String": "e"}, "ﬁ  "), strip | {"strip_left": True},
          nfkc, made.replace({"String": "fi"}, ""), nfkc)), plain(small)),
      ("unigram, first, no normalizer", make(None, made.metaspace("first")),
       plain(small)),
      ("unigram, never, bytes", make(
          nfkc, made.metaspace("never"), extra=bytes_, byte_fallback=True),
       plain(small)),
      ("unigram, no split, some bytes", make(
          nfkc, made.metaspace(split=False), extra=bytes_[:0xC5],
          byte_fallback=True), plain(small)),
      ("xlm-r, added tokens", make(nfkc, tokens=made.ADDED),
       plain(tagged + small[:3000]) + truncated(rng, tagged, n // 2)),
      ("xlm-r, added tokens, first", make(
          made.sequence(nfkc, strip), {"type": "Sequence", "pretokenizers": [
              {"type": "WhitespaceSplit"}, made.metaspace("first")]},
          tokens=made.ADDED), plain(tagged) + truncated(rng, tagged, n // 4)),
  ]


def compare_made(comparison, only, ingredients):
  bad = 0
  with tempfile.TemporaryDirectory() as directory:
    for setups in (word_piece_setups, bpe_setups, unigram_setups):
      for name, setup, cases in setups(*ingredients):
        if only not in name:
          continue
        path = pathlib.Path(directory, "tokenizer.json")
        path.write_text(json.dumps(setup))
        bad += comparison.run(name, directory, cases)
  return bad


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("program", help="the program encode_cases")
  parser.add_argument("directories", nargs="*", type=pathlib.Path)
  parser.add_argument("--quick", action="store_true",
                      help="leave out what takes longest")
  parser.add_argument("--only", default="", help="setups whose name has this")
  args = parser.parse_args()
  rng = random.Random(20261123)
  corpus = build_corpus(1, args.quick)
  small = corpus[:9000] + corpus[9000::37]
  # Each run of code points is there in three ways: one or two of them will do.
  full = corpus[:9000] + corpus[9000::2] if args.quick else corpus
  tagged = list(made.added_token_texts(rng))
  n = 4000 if args.quick else 20000
  comparison, bad = Comparison(args.program), 0
  if not args.directories:
    bad += compare_made(comparison, args.only, (rng, full, small, tagged, n))
  if model := os.environ.get("SVDSERVE_MODEL"):
    args.directories.append(pathlib.Path(model))
  for directory in args.directories:
    bad += compare_directory(comparison, directory, rng, full, n)
  print(f"tokenizers {tokenizers.__version__}: {comparison.cases} cases, "
        f"{comparison.tokens} tokens, {bad} differences")
  if bad:
    sys.exit(1)


if __name__ == "__main__":
  main()
