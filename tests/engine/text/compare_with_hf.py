#!/usr/bin/env python3
"""Holds our tokenizer against Hugging Face `tokenizers`, id by id.

    compare_with_hf.py PATH_OF_ENCODE_CASES [--quick]

Makes vocabularies and a large varied corpus (the same on every run), encodes it
with both and fails on the first differences in ids, type ids or offsets. Where
SVDSERVE_MODEL names a model's directory, its own tokenizer is compared too.
Exits with 77 (skipped) where `tokenizers` is not installed.
"""

import argparse
import itertools
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "true"  # it is only the reference here
try:
  import tokenizers
except ImportError:
  print("SKIPPED: the Python package `tokenizers` is not installed")
  sys.exit(77)

SPECIAL, TRUNCATE, LEFT, PAIR = 1, 2, 4, 8
NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]

SENTENCES = """\
The quick brown fox jumps over the lazy dog, and doesn't look back.
Attention is all you need; the dominant sequence transduction models are based on recurrent networks.
Ünïcödé wörds with àccénts, naïve café façade, Ångström, Đorđe, Łódź, İstanbul, ıssız, ſtraße, STRASSE
Быстрая коричневая лиса перепрыгивает через ленивую собаку. Ёлка, Йод, їжак
Η γρήγορη καφέ αλεπού πηδάει πάνω από τον τεμπέλη σκύλο. ΟΔΥΣΣΕΥΣ ᾳ ΐ
快速的棕色狐狸跳过懒狗。 素早い茶色の狐がのろまな犬を飛び越えます ガギグゲゴ ｶﾞｷﾞ
빠른 갈색 여우가 게으른 개를 뛰어넘는다 각 힣 ㄱㅏ
الثعلب البني السريع يقفز فوق الكلب الكسول مُحَمَّد ﷺ ﷽
השועל החום המהיר קופץ מעל הכלב העצלן שָׁלוֹם
तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है क़ ज़ ड़
สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ ကြက် ខ្មែរ བོད་ཡིག
👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 ☺️ 1️⃣ 🤷🏿‍♀️ 😀😁 ✈️ ❤️‍🔥
https://example.com/a?b=c&d=%20#frag user@example.org C++20 x86_64 3.14159e-10 $1,234.56 #hashtag @name
don't can't they're I'll ... --- ___ *** ``quoted'' “quoted” ‘single’ «guillemets» ¿qué? ¡olé!
tab\there\r\nnew line\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u200dwidth\ufeffbom\u00adsoft
[CLS] not a start [SEP] [MASK] [mask] [UNK][PAD] [ MASK ] x[MASK]y ##ing ##able un##able
a\u0301 e\u0308\u0323 o\u0323\u0308 \u1e0b\u0323 \u0344 \u0f73\u0f71 q\u0307\u0323 \u1100\u1161\u11a8 \uac00\u11a8
\U0001d15e\U0001d165\U0001d16e \u1b05\u1b44\u0301 k\u302f\u0301\u302e x\U0001d166\U0001d165 \U00016ff0\u0301
""".splitlines()


def fail(message):
  print(f"FAILED: {message}")
  sys.exit(1)


# ---- the corpus -------------------------------------------------------------


def words(rng, alphabet, count, longest=14):
  return ["".join(rng.choices(alphabet, k=rng.randint(1, longest)))
          for _ in range(count)]


def code_point_texts():
  """All code points: alone, between letters, in words, at both ends."""
  for at in range(0, len(CODE_POINTS), 8):
    chunk = [chr(c) for c in CODE_POINTS[at:at + 8]]
    yield " ".join(chunk)
    yield "".join(f"a{c}b " for c in chunk)
    yield "hello" + "world".join(chunk) + "ing"
  for c in CODE_POINTS[:0x3400]:
    yield chr(c)
    yield f"the{chr(c)}\u0301{chr(c)}"


def combining_texts(rng):
  marks = [chr(c) for c in CODE_POINTS if unicodedata.combining(chr(c))]
  # Marks that newer Unicode has, or that are not "nonspacing", stay behind.
  kept = [c for c in marks if unicodedata.category(c) != "Mn"]
  bases = list("ae가각\u1e0b\u0f73\u0344\U0001d15e\U0001d160é中豈\u2f80b") + [""]
  for _ in range(6000):
    pool = rng.choice([marks, kept, marks + kept * 20])
    pieces = [rng.choice(bases) + "".join(rng.choices(pool, k=rng.randint(0, 5)))
              for _ in range(rng.randint(1, 4))]
    yield rng.choice(["", " ", "\u00ad", "\0"]).join(pieces)


def mixed_texts(rng, count):
  scripts = [(0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF),
             (0x400, 0x4FF), (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F),
             (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F),
             (0x2600, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x4EFF),
             (0xAC00, 0xACFF), (0xF900, 0xFAFF), (0xFE00, 0xFE0F),
             (0xFF00, 0xFFEF), (0x1D100, 0x1D1FF), (0x1F300, 0x1F6FF),
             (0x2F800, 0x2F8FF), (0xE0100, 0xE01EF), (0x61, 0x7A),
             (0x61, 0x7A), (0x61, 0x7A)]
  for _ in range(count):
    pieces = []
    for _ in range(rng.randint(1, 12)):
      low, high = rng.choice(scripts)
      pieces.append("".join(chr(rng.randint(low, high))
                            for _ in range(rng.randint(1, 8))))
    yield rng.choice(["", " ", " ", "\u200d"]).join(pieces)


def emoji_texts(rng):
  people = "👩👨🧑👧👦👮🤷🏃"
  for _ in range(800):
    yield "".join(
        rng.choice(people) + rng.choice(["", *"🏻🏼🏽🏾🏿"]) +
        rng.choice(["", "\u200d", "\ufe0f", " "]) for _ in range(6))


def malformed_texts(rng, texts):
  """Bytes: truncated, over-long, surrogates, lone and random bytes."""
  fixed = [b"\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80",
           b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f\x92",
           b"a\xe2\x82b", b"\x80\x80\x80", b"\xf0\x9f\x98\x80\xf0\x9f", b"\xc3"]
  for f in fixed:
    for before, after in itertools.product([b"", b"abc", b"a "], repeat=2):
      yield before + f + after
  for _ in range(3000):
    data = bytearray(rng.choice(texts).encode()[:200])
    for _ in range(rng.randint(1, 6)):
      at = rng.randrange(len(data) + 1)
      match rng.randrange(3):
        case 0:
          data[at:at + 1] = b""
        case 1:
          data[at:at] = bytes([rng.randrange(256)])
        case _:
          data[at:at] = rng.choice(fixed)
    yield bytes(data)
  for _ in range(500):
    yield bytes(rng.randrange(256) for _ in range(rng.randint(0, 60)))


def long_texts(rng):
  line = " ".join(SENTENCES) + " "
  yield (line * (1 + (1 << 20) // len(line.encode())))[:1 << 20]
  yield "a" * (1 << 20)
  yield "un" * (1 << 19)
  yield "e\u0301" * (1 << 18)
  yield "a" + "\u0301" * (1 << 18) + "\u1b44"
  yield "中" * (1 << 18)
  yield ", " * (1 << 18)
  for n in (99, 100, 101, 102):
    yield "a" * n
    yield "é" * n + " b"
    yield "x" + "e\u0301" * n


def build_corpus(seed, quick):
  rng = random.Random(seed)
  texts = ["", " ", "\n", *SENTENCES]
  texts += [s.upper() for s in SENTENCES] + [s.title() for s in SENTENCES]
  texts += mixed_texts(rng, 3000 if quick else 20000)
  texts += combining_texts(rng)
  texts += emoji_texts(rng)
  texts += [" ".join(words(rng, "abcdeinorstu", rng.randint(1, 60)))
            for _ in range(1500)]
  data = [t.encode() for t in texts] + list(malformed_texts(rng, texts))
  data += [t.encode() for t in long_texts(rng)]
  data += [t.encode() for t in code_point_texts()]
  return data


# ---- tokenizers -------------------------------------------------------------


def build_vocab(rng, prefix="##"):
  """Characters and substrings of the sentences, whole and continuing."""
  tokens = dict.fromkeys(NAMES)
  pool = SENTENCES + [s.lower() for s in SENTENCES]
  pool += [unicodedata.normalize("NFD", s) for s in pool]
  for sentence in pool:
    for word in sentence.split():
      for c in word:
        if rng.random() < 0.95:
          tokens.setdefault(c)
          tokens.setdefault(prefix + c)
      for _ in range(4):
        a, b = sorted(rng.choices(range(len(word) + 1), k=2))
        if a < b:
          tokens.setdefault((prefix if a else "") + word[a:b])
  for word in words(rng, "abcdeinorstu", 3000, 5):
    tokens.setdefault(rng.choice(["", prefix]) + word)
  for c in "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()[]#-_/":
    tokens.setdefault(c)
    tokens.setdefault(prefix + c)
  for c in rng.sample(CODE_POINTS[0x80:0x12000], 6000):
    tokens.setdefault(chr(c))
    tokens.setdefault(prefix + chr(c))
  tokens.pop("", None)
  tokens.pop(prefix, None)
  return {token: i for i, token in enumerate(tokens)}


def added(content, **flags):
  base = dict(single_word=False, lstrip=False, rstrip=False, normalized=False,
              special=False)
  return base | flags | {"id": 0, "content": content}


def tokenizer_json(vocab, normalizer=None, tokens=(), prefix="##", longest=100,
                   post="template"):
  special = [added(n, special=True) for n in NAMES]
  ids = [dict(t, id=vocab.get(t["content"], 0)) for t in [*special, *tokens]]
  piece = lambda kind, name, t: {kind: {"id": name, "type_id": t}}
  single = [piece("SpecialToken", "[CLS]", 0), piece("Sequence", "A", 0),
            piece("SpecialToken", "[SEP]", 0)]
  processors = {
      "template": {
          "type": "TemplateProcessing", "single": single,
          "pair": single + [piece("Sequence", "B", 1),
                            piece("SpecialToken", "[SEP]", 1)],
          "special_tokens": {n: {"id": n, "ids": [vocab[n]], "tokens": [n]}
                             for n in ("[CLS]", "[SEP]")}},
      "bert": {"type": "BertProcessing", "sep": ["[SEP]", vocab["[SEP]"]],
               "cls": ["[CLS]", vocab["[CLS]"]]},
      "none": None}
  bert = dict(type="BertNormalizer", clean_text=True, strip_accents=None,
              handle_chinese_chars=True, lowercase=True)
  return {
      "version": "1.0", "truncation": None, "padding": None,
      "added_tokens": ids,
      "normalizer": None if normalizer is False else bert | (normalizer or {}),
      "pre_tokenizer": {"type": "BertPreTokenizer"},
      "post_processor": processors[post], "decoder": None,
      "model": {"type": "WordPiece", "unk_token": "[UNK]",
                "continuing_subword_prefix": prefix,
                "max_input_chars_per_word": longest, "vocab": vocab}}


ADDED = [
    added("<tag>"), added("<tag>x"), added("new"), added("newest"),
    added("<l>", lstrip=True), added("<r>", rstrip=True),
    added("<b>", lstrip=True, rstrip=True), added("alone", single_word=True),
    added("Élan", normalized=True), added("New York", normalized=True),
    added("both", normalized=True, single_word=True, lstrip=True),
    added("中国", normalized=True), added("狐狸", rstrip=True), added("’s"),
]


def added_token_texts(rng):
  pieces = [t["content"] for t in ADDED] + [
      "ÉLAN", "e\u0301lan", "NEW YORK", "new  york", "Both", " ", " ", "  ",
      "\u00a0", "\u3000", "\t", "x", "_", "é", "\u0301", "7", "-", "word", "<",
      "[MASK]", "[mask]", "中", "国", "tag>", "\ufffd", "\u200b"]
  for _ in range(8000):
    yield "".join(rng.choices(pieces, k=rng.randint(1, 9))).encode()


# ---- comparison -------------------------------------------------------------


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

  def run(self, name, directory, cases):
    start = time.time()
    tokenizer = tokenizers.Tokenizer.from_file(f"{directory}/tokenizer.json")
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


def truncated(rng, texts, count):
  """Pairs and singles with all sides and many limits, some tiny."""
  short = [t for t in texts if len(t) < 4000]
  out = []
  for _ in range(count):
    flags = rng.choice([0, SPECIAL]) | rng.choice([0, LEFT]) | rng.choice(
        [0, TRUNCATE, TRUNCATE])
    limit = rng.choice([3, 4, 5, 7, 8, 16, 33, 64, 128]) if flags & TRUNCATE else 0
    out.append((flags, limit))
  out.sort()  # equal options side by side
  cases = []
  for flags, limit in out:
    pair = rng.choice(short) if rng.random() < 0.7 else None
    cases.append((flags | (PAIR if pair is not None else 0), limit,
                  rng.choice(short), pair))
  return cases


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("program", help="the program encode_cases")
  parser.add_argument("--quick", action="store_true",
                      help="leave out what takes longest")
  args = parser.parse_args()
  rng = random.Random(20261123)
  corpus = build_corpus(1, args.quick)
  small = corpus[:9000] + corpus[9000::37]
  vocab = build_vocab(rng)
  tagged = list(added_token_texts(rng))
  n = 4000 if args.quick else 20000
  setups = [
      ("uncased", tokenizer_json(vocab),
       plain(corpus) + truncated(rng, corpus[:9000], n)),
      ("cased", tokenizer_json(vocab, {"lowercase": False}, post="bert"),
       plain(small) + truncated(rng, small, n // 4)),
      ("strip accents only", tokenizer_json(
          vocab, {"lowercase": False, "strip_accents": True}), plain(small)),
      ("keep accents", tokenizer_json(vocab, {"strip_accents": False}),
       plain(small)),
      ("no cleaning", tokenizer_json(
          vocab, {"clean_text": False, "handle_chinese_chars": False},
          post="none"), plain(small) + truncated(rng, small, n // 4)),
      ("no normalizer", tokenizer_json(vocab, False), plain(small)),
      ("short words, no prefix", tokenizer_json(
          build_vocab(rng, ""), prefix="", longest=7), plain(small)),
      ("added tokens", tokenizer_json(vocab, None, ADDED),
       plain(tagged + small[:3000]) + truncated(rng, tagged, n // 2)),
      ("added tokens, cased", tokenizer_json(
          vocab, {"lowercase": False, "clean_text": False}, ADDED),
       plain(tagged) + truncated(rng, tagged, n // 4)),
  ]
  comparison, bad = Comparison(args.program), 0
  with tempfile.TemporaryDirectory() as directory:
    for name, setup, cases in setups:
      path = pathlib.Path(directory, "tokenizer.json")
      path.write_text(json.dumps(setup))
      bad += comparison.run(name, directory, cases)
  model = os.environ.get("SVDSERVE_MODEL")
  if model:
    bad += comparison.run(f"model {pathlib.Path(model).name}", model,
                          plain(corpus) + truncated(rng, corpus[:9000], n))
  print(f"tokenizers {tokenizers.__version__}: {comparison.cases} cases, "
        f"{comparison.tokens} tokens, {bad} differences")
  if bad:
    sys.exit(1)


if __name__ == "__main__":
  main()
