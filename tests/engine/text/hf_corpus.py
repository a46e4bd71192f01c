"""The large varied corpus of compare_with_hf.py, the same on every run."""

import itertools
import random
import unicodedata

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


def words(rng, alphabet, count, longest=14):
  return ["".join(rng.choices(alphabet, k=rng.randint(1, longest)))
          for _ in range(count)]


def code_point_texts():
  """All code points: alone, between letters, before marks, in words."""
  for at in range(0, len(CODE_POINTS), 8):
    chunk = [chr(c) for c in CODE_POINTS[at:at + 8]]
    yield " ".join(chunk)
    yield "".join(f"a{c}b {c}\u0343\u030d " for c in chunk)
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


def cluster_texts(rng):
  """Grapheme clusters and what nearly is one: a few of every class."""
  pool = ["a", "\r", "\n", "\0", "\U0001d177", "\u0600", "\U000110bd",
          "\u0301", "\u0343", "\u200c", "\u200d", "\u0903", "\u0c41", "\u1100",
          "\u1161", "\u11a8", "가", "각", "©", "®", "‼", "😀", "\u0915",
          "\u094d", "\u09cd", "\u0995", "\u0d4e", "\ufe0f", "\U0001f3fd", "🇩",
          "\u00ad", "ﬁ", "²", "Å", "e", "\u3099", "が", "ｶ", "\uff9e", "\u1eb9",
          "\u0345", "\u0f71", " "]
  for _ in range(6000):
    yield "".join(rng.choices(pool, k=rng.randint(2, 9)))


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
  texts += cluster_texts(rng)
  texts += [" ".join(words(rng, "abcdeinorstu", rng.randint(1, 60)))
            for _ in range(1500)]
  data = [t.encode() for t in texts] + list(malformed_texts(rng, texts))
  data += [t.encode() for t in long_texts(rng)]
  data += [t.encode() for t in code_point_texts()]
  return data
