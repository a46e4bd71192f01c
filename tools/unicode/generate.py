#!/usr/bin/env python3
"""Writes engine/text/unicode_tables.cc from the behaviour of `tokenizers`.

Hugging Face `tokenizers` mixes several Unicode versions (those of its Rust
crates), none of which is that of a system library. So the tables are not taken
from the Unicode database: every code point is put through the pinned wheel's
own normalizers and pre-tokenizers, and what they do is written down.

    python3 -m venv /tmp/unicode-venv
    /tmp/unicode-venv/bin/pip install tokenizers==0.23.3
    /tmp/unicode-venv/bin/python tools/unicode/generate.py

The output is committed; run this again only to move to another version, and
then run tests/engine/text/compare_with_hf.py against the same version.
"""

import argparse
import functools
import pathlib
import struct
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers
from tokenizers import pre_tokenizers

TOKENIZERS_VERSION = "0.23.3"
ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]

# Bits of a code point's properties; the same values as in unicode.h.
CONTROL, WHITESPACE, CJK, PUNCTUATION, MARK, WORD, REGEX_SPACE, LETTER, \
    NUMBER = (1 << i for i in range(9))

# Values of unicode.h's GraphemeClass.
(OTHER, CONTROL_BREAK, CR, LF, PREPEND, EXTEND, CONJUNCT_EXTEND, LINKER, ZWJ,
 SPACING_MARK, HANGUL_L, HANGUL_V, HANGUL_T, HANGUL_LV, HANGUL_LVT, PICTOGRAPH,
 CONSONANT) = range(17)


def bert_normalizer(**on):
  flags = dict(clean_text=False, handle_chinese_chars=False,
               strip_accents=False, lowercase=False)
  return normalizers.BertNormalizer(**(flags | on)).normalize_str


def probe_added_token(probe):
  """Runs `probe` on "Q" + c for all c, where Q is a token with flags."""

  def run(**flags):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.add_tokens([AddedToken("QQ", normalized=False, **flags)])
    found = set()
    for at in range(0, len(CODE_POINTS), 4096):
      chunk = CODE_POINTS[at:at + 4096]
      encodings = tokenizer.encode_batch(["QQ" + chr(c) for c in chunk])
      found.update(c for c, e in zip(chunk, encodings) if probe(e))
    return found

  return run


def matching(pattern):
  """The code points that the pattern of one character matches."""
  remove = normalizers.Replace(Regex(pattern), "").normalize_str
  found = set()
  for at in range(0, len(CODE_POINTS), 512):
    chunk = CODE_POINTS[at:at + 512]
    kept = set(map(ord, remove("".join(map(chr, chunk)))))
    found.update(c for c in chunk if c not in kept)
  return found


def probe_flags():
  clean = bert_normalizer(clean_text=True)
  chinese = bert_normalizer(handle_chinese_chars=True)
  split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
  # A match is refused where a word character follows it.
  word = probe_added_token(lambda e: 1 not in e.ids)(single_word=True)
  # A match swallows the whitespace after it.
  space = probe_added_token(lambda e: e.offsets[0] == (0, 3))(rstrip=True)
  letters, numbers = matching(r"\p{L}"), matching(r"\p{N}")
  flags = {}
  for c in CODE_POINTS:
    s, f = chr(c), 0
    if clean(s) == "":
      f |= CONTROL
    if chinese(s) == f" {s} ":
      f |= CJK
    pieces = [p for p, _ in split(f"a{s}a")]
    if pieces == ["a", s, "a"]:
      f |= PUNCTUATION
    elif pieces == ["a", "a"]:
      f |= WHITESPACE
    elif pieces != [f"a{s}a"]:
      sys.exit(f"U+{c:04X}: unexpected pieces {pieces}")
    # Cleaning turns a tab into a space: it must agree with splitting.
    if not f & CONTROL and (clean(s) == " ") != bool(f & WHITESPACE):
      sys.exit(f"U+{c:04X}: cleaning and splitting disagree on whitespace")
    f |= WORD * (c in word) | REGEX_SPACE * (c in space)
    f |= LETTER * (c in letters) | NUMBER * (c in numbers)
    flags[c] = f
  # One whitespace for splitting and for the regular expressions of BPE.
  if matching(r"\s") != {c for c, f in flags.items() if f & WHITESPACE}:
    sys.exit("\\s is not what separates words")
  return flags


def probe_mappings(flags):
  """Canonical decompositions and lower case; marks are added to `flags`."""
  nfd = normalizers.NFD().normalize_str
  strip = bert_normalizer(strip_accents=True)
  lower = bert_normalizer(lowercase=True)
  decompositions, lowercase = {}, {}
  for c in CODE_POINTS:
    s = chr(c)
    d = nfd(s)
    if d == s:
      if strip(s) == "":
        flags[c] |= MARK
    elif not 0xAC00 <= c <= 0xD7A3:  # Hangul is computed
      decompositions[c] = [ord(x) for x in d]
    low = lower(s)
    if low != s:
      lowercase[c] = [ord(x) for x in low]
  return decompositions, lowercase


def probe_combining_order(decompositions):
  """{code point: rank of its combining class, from 1}; starters are absent."""
  nfd = normalizers.NFD().normalize_str

  def swaps(a, b):
    return nfd(f"e{chr(a)}{chr(b)}") == f"e{chr(b)}{chr(a)}"

  # The lowest and the highest combining class there is: 1 and 240.
  low, high = 0x0334, 0x0345
  marks = [c for c in CODE_POINTS
           if c not in decompositions and not 0xAC00 <= c <= 0xD7A3
           and (swaps(c, low) or swaps(high, c))]
  marks += [low, high] if high not in marks else [low]
  marks = sorted(set(marks))

  def compare(a, b):
    return 1 if swaps(a, b) else -1 if swaps(b, a) else 0

  marks.sort(key=functools.cmp_to_key(compare))
  ranks, rank = {}, 0
  for i, c in enumerate(marks):
    if i == 0 or compare(marks[i - 1], c) != 0:
      rank += 1
    ranks[c] = rank
  return ranks


def count_graphemes():
  """A function that counts the units in which Precompiled maps a text.

  That is the only use of grapheme clusters: one of less than six bytes is one
  unit, a longer one is as many units as it has code points. The probe is a map
  that turns any byte, and so any unit, into one letter.
  """
  trie = [0] * 1024
  trie[0] = 256 << 10  # darts: offset to the children
  for byte in range(1, 256):
    trie[256 + byte] = byte | 1 << 8 | 512 << 10  # label, is a key, offset
    trie[768 + byte] = 1 << 31  # value 0: where its replacement starts
  data = struct.pack("<I1024I", 4096, *trie) + b"X\0"
  normalize = normalizers.Precompiled(data).normalize_str
  return lambda text: len(normalize(text))


def hangul_class(c, count):
  """By what joins it: seen by a mark's cluster, which is five bytes alone."""
  after = tuple(count(chr(c) + x + "\u0301") == 3
                for x in "\u1100\u1161\u11a8")
  return {(True, True, False): HANGUL_L, (False, True, True): HANGUL_V,
          (False, False, True): HANGUL_T, (False, False, False): OTHER}[after]


def grapheme_class(c, count):
  """What a code point is to UAX 29, where it can change what count() says.

  A flag's two regional indicators have eight bytes: they need no class.
  """
  s, mark, zwj, ka, virama = chr(c), "\u0301", "\u200d", "\u0915", "\u094d"
  if s in "\r\n\u200d":
    return {"\r": CR, "\n": LF, zwj: ZWJ}[s]
  if count("a" + s) == 1:
    if count(ka + s + ka + mark) == 4:
      return LINKER
    if count(ka + s + virama + ka + mark) == 5:
      return CONJUNCT_EXTEND
    return EXTEND if count("©" + s + zwj + "©" + mark) == 5 else SPACING_MARK
  if count(s + "a") == 1:
    return PREPEND
  if count(s + mark + mark) == 2:  # two marks alone are one unit
    return CONTROL_BREAK
  if count(s + zwj + "©" + mark) == 4:
    return PICTOGRAPH
  if count(s + virama + ka + mark) == 4:
    return CONSONANT
  return hangul_class(c, count)


def probe_graphemes():
  """{code point: class}; Hangul syllables are computed, and checked here."""
  count = count_graphemes()
  if (count("\r\n"), count("a\u0301"), count("a\0")) != (1, 1, 2):
    sys.exit("the probe of grapheme clusters does not work")
  classes = {c: grapheme_class(c, count) for c in CODE_POINTS}
  for c in range(0xAC00, 0xD7A4):
    # Both are joined by T; only one without T is joined by V.
    expected = HANGUL_T if (c - 0xAC00) % 28 else HANGUL_V
    if classes.pop(c) != expected:
      sys.exit(f"U+{c:04X}: not the class of a Hangul syllable")
  return classes


def ranges(values):
  """[(first, last, value)] of equal neighbours, zeros left out."""
  out = []
  for c in range(0x110000):
    v = values.get(c, 0)
    if not v:
      continue
    if out and out[-1][1] == c - 1 and out[-1][2] == v:
      out[-1][1] = c
    else:
      out.append([c, c, v])
  return out


def shifts(lowercase):
  """[(first, last, step, delta)] of one-to-one mappings in regular runs."""
  out = []
  for c, to in sorted(lowercase.items()):
    if len(to) != 1:
      continue
    delta = to[0] - c
    if out and out[-1][3] == delta:
      first, last, step, _ = out[-1]
      gap = c - last
      if gap <= 2 and (first == last or step == gap):
        out[-1] = [first, c, gap, delta]
        continue
    out.append([c, c, 1, delta])
  return out


def array(kind, name, rows, comment):
  text = f"// {comment}\nconst {kind} {name}[] = {{\n"
  line = "   "
  for row in rows:
    item = row if isinstance(row, str) else "{" + ",".join(row) + "}"
    if len(line) + len(item) + 2 > 80:
      text += line + "\n"
      line = "   "
    line += " " + item + ","
  return text + line + "\n};\n" + f"const size_t {name}Size = {len(rows)};\n\n"


def render(flags, ranks, graphemes, decompositions, lowercase):
  h = lambda v: f"0x{v:X}"
  long_lowercase = {c: t for c, t in lowercase.items() if len(t) > 1}
  pool, starts = [], {}

  def intern(sequence):
    key = tuple(sequence)
    if key not in starts:
      starts[key] = len(pool)
      pool.extend(sequence)
    return starts[key], len(sequence)

  def mapped(table):
    rows = []
    for c, to in sorted(table.items()):
      start, size = intern(to)
      rows.append((h(c), str(start), str(size)))
    return rows

  decomposition_rows = mapped(decompositions)
  lowercase_rows = mapped(long_lowercase)
  body = array("FlagRange", "kFlagRanges",
               [(h(a), h(b), str(v)) for a, b, v in ranges(flags)],
               "Properties by range of code points.")
  body += array("FlagRange", "kCombiningRanges",
                [(h(a), h(b), str(v)) for a, b, v in ranges(ranks)],
                "Rank of the canonical combining class.")
  body += array("FlagRange", "kGraphemeRanges",
                [(h(a), h(b), str(v)) for a, b, v in ranges(graphemes)],
                "GraphemeClass, Hangul syllables left out.")
  body += array("LowercaseRange", "kLowercaseRanges",
                [(h(a), h(b), str(s), str(d))
                 for a, b, s, d in shifts(lowercase)],
                "One-to-one lower case: every step-th code point, by a shift.")
  body += array("Mapping", "kLongLowercase", lowercase_rows,
                "Lower case of more than one code point.")
  body += array("Mapping", "kDecompositions", decomposition_rows,
                "Full canonical decompositions, Hangul left out.")
  body += array("char32_t", "kMappingPool", [h(v) for v in pool],
                "The code points that mappings refer to.")
  return f"""\
// Generated by tools/unicode/generate.py from the behaviour of `tokenizers`
// {TOKENIZERS_VERSION}. Do not edit.
#include "engine/text/unicode_tables.h"

namespace svdserve::unicode {{

// clang-format off
{body}// clang-format on

}}  // namespace svdserve::unicode
"""


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path,
                      default=ROOT / "engine/text/unicode_tables.cc")
  args = parser.parse_args()
  if tokenizers.__version__ != TOKENIZERS_VERSION:
    sys.exit(f"needs tokenizers=={TOKENIZERS_VERSION}, "
             f"found {tokenizers.__version__}")
  flags = probe_flags()
  decompositions, lowercase = probe_mappings(flags)
  ranks = probe_combining_order(decompositions)
  graphemes = probe_graphemes()
  args.out.write_text(
      render(flags, ranks, graphemes, decompositions, lowercase))
  print(f"{args.out}: {args.out.stat().st_size} bytes, "
        f"{len(decompositions)} decompositions, {len(lowercase)} lower case, "
        f"{len(ranks)} combining")


if __name__ == "__main__":
  main()
