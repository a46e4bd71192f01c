"""Varied texts, the same on every run: prose, many scripts, numbers, emoji.

Prose comes from the licences that every Debian system carries; the rest is
generated. Lengths are spread evenly on a logarithmic scale, from one token to
beyond the longest input of BERT models, so that truncation is met as well.
"""

import pathlib
import random

LICENCES = pathlib.Path("/usr/share/common-licenses")

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "How do I reset my password?",
    "Die Würde des Menschen ist unantastbar; sie zu achten ist Pflicht.",
    "Où est passée la bibliothèque de l'été dernier ?",
    "El niño comió una piña y después durmió la siesta.",
    "Zażółć gęślą jaźń, powiedział Łukasz.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Hyvää päivää, missä on lähin rautatieasema?",
    "İstanbul'da ışıklar söndü, çünkü fırtına çıktı.",
    "Tôi muốn đặt một phòng đôi ở Hà Nội.",
    "Съешь же ещё этих мягких французских булок.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "السلام عليكم، كيف حالك اليوم؟",
    "שלום עולם, מה שלומך היום?",
    "नमस्ते, आप कैसे हैं?",
    "สวัสดีครับ วันนี้อากาศดีมาก",
    "今天天气很好，我们去公园散步吧。",
    "吾輩は猫である。名前はまだ無い。",
    "안녕하세요, 만나서 반갑습니다.",
    "გამარჯობა, როგორ ხარ?",
    "Բարեւ, ինչպե՞ս ես։",
]
SYMBOLS = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "❤️", "🇩🇪", "…", "—", "“x”", "™", "½", "√2≈1.414",
           "∑ᵢ xᵢ²", "ﬁne", "ｆｕｌｌ", "co\u0301te", "a\u200bb", "#tag", "@user"]


def _prose():
    files = sorted(p for p in LICENCES.glob("*") if p.is_file() and not p.is_symlink())
    words = [w for p in files for w in p.read_text(errors="replace").split()]
    if len(words) < 10000:
        raise SystemExit(f"{LICENCES} holds too little text; install base-files")
    return words


def _number(rng):
    kind = rng.randrange(5)
    if kind == 0:
        return str(rng.randrange(10 ** rng.randrange(1, 13)))
    if kind == 1:
        return f"{rng.gauss(0, 1e4):.{rng.randrange(6)}f}"
    if kind == 2:
        return f"{rng.randrange(1900, 2100)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    if kind == 3:
        return f"https://example.org/{rng.getrandbits(40):x}?q={rng.randrange(99)}"
    return f"{rng.uniform(0, 1):.3e}"


def _mixed(rng, words):
    parts = []
    while len(parts) < words:
        kind = rng.random()
        if kind < 0.55:
            parts += rng.choice(SENTENCES).split()
        elif kind < 0.75:
            parts.append(_number(rng))
        elif kind < 0.9:
            parts.append(rng.choice(SYMBOLS))
        else:
            parts.append("".join(chr(rng.randrange(97, 123)) for _ in range(rng.randrange(1, 15))))
    return " ".join(parts[:words])


def make_texts(count, seed=1):
    """`count` texts of 1 to about 500 words; three in five are prose."""
    rng = random.Random(seed)
    prose = _prose()
    texts = []
    for i in range(count):
        words = max(1, round(500 ** rng.random()))
        if i % 5 < 3:
            start = rng.randrange(len(prose) - words)
            texts.append(" ".join(prose[start:start + words]))
        else:
            texts.append(_mixed(rng, words))
    return texts
