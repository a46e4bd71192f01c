"""The tokenizers of compare_with_hf.py, each as the contents of tokenizer.json.

WordPiece vocabularies are drawn at random; BPE and Unigram models are trained
by `tokenizers` on text that is at hand everywhere, and so are no constants.
"""

import base64
import functools
import io
import json
import pydoc_data.topics
import random
import struct
import unicodedata

import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from hf_corpus import CODE_POINTS, SENTENCES, words

NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


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


# ---- training ----------------------------------------------------------------


def training_texts():
  """English prose, the sentences in many scripts, and words of no language."""
  rng = random.Random(5)
  prose = "\n".join(pydoc_data.topics.topics.values()).splitlines()
  made = words(rng, "abcdeinorstu", 3000, 9)
  return (prose + SENTENCES * 20 + [s.upper() for s in SENTENCES] * 3 +
          [" ".join(rng.choices(made, k=12)) for _ in range(2000)])


@functools.cache
def trained_bpe():
  """(vocabulary, merges) of byte-level BPE."""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.train_from_iterator(training_texts(), trainers.BpeTrainer(
      vocab_size=8000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False))
  model = json.loads(tokenizer.to_str())["model"]
  return model["vocab"], model["merges"]


@functools.cache
def trained_unigram():
  """[(piece, score)]: XLM-R's first four, trained ones, many characters."""
  tokenizer = tokenizers.Tokenizer(models.Unigram())
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
  tokenizer.train_from_iterator(training_texts(), trainers.UnigramTrainer(
      vocab_size=7000, unk_token="<unk>", special_tokens=["<unk>"],
      show_progress=False))
  pieces = dict(json.loads(tokenizer.to_str())["model"]["vocab"][1:])
  rng = random.Random(6)
  for c in rng.sample(CODE_POINTS[0x80:0x12000], 6000):
    pieces.setdefault(chr(c), -12 - rng.random())
  special = [(t, 0.0) for t in ("<s>", "<pad>", "</s>", "<unk>")]
  return special + [p for p in pieces.items() if p not in special]


@functools.cache
def nmt_nfkc():
  """SentencePiece's own map, out of a model that it trains."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(SENTENCES * 5), model_writer=model,
      vocab_size=400, hard_vocab_limit=False, minloglevel=2,
      normalization_rule_name="nmt_nfkc")
  normalizer_spec = protobuf_field(model.getvalue(), 3)
  return protobuf_field(normalizer_spec, 2)


def protobuf_field(data, wanted):
  """The bytes of the first field of that number."""

  def varint():
    nonlocal at
    value = shift = 0
    while True:
      byte = data[at]
      at += 1
      value |= (byte & 0x7F) << shift
      shift += 7
      if byte < 0x80:
        return value

  at = 0
  while at < len(data):
    number, kind = divmod(varint(), 8)
    if kind == 2:
      size = varint()
      if number == wanted:
        return data[at:at + size]
      at += size
    elif kind == 0:
      varint()
    else:
      at += {1: 8, 5: 4}[kind]
  raise ValueError(f"no field {wanted}")


def every_byte_map():
  """A map that turns each unit of a text into one letter: shows clusters."""
  trie = [0] * 1024
  trie[0] = 256 << 10
  for byte in range(1, 256):
    trie[256 + byte] = byte | 1 << 8 | 512 << 10
    trie[768 + byte] = 1 << 31
  return struct.pack("<I1024I", 4096, *trie) + b"X\0"


# ---- RoBERTa -----------------------------------------------------------------


def special_tokens(vocab, mask_lstrip):
  names = ["<s>", "<pad>", "</s>", "<unk>"]
  return [dict(added(n, special=True), id=vocab[n]) for n in names] + [
      dict(added("<mask>", special=True, lstrip=mask_lstrip), id=len(vocab))]


def roberta_json(prefix=False, trim=True, keep=None, post="roberta", tokens=(),
                 lacking="", merges_as_text=False, **model):
  vocab, merges = trained_bpe()
  vocab = {t: i for t, i in vocab.items() if t not in lacking or t == ""}
  merges = [m for m in merges
            if all(t in vocab for t in (*m, m[0] + m[1]))]
  pair = {"type": "RobertaProcessing", "sep": ["</s>", vocab["</s>"]],
          "cls": ["<s>", vocab["<s>"]], "trim_offsets": trim,
          "add_prefix_space": prefix if keep is None else keep}
  use_regex = model.pop("use_regex", True)
  return {
      "version": "1.0", "truncation": None, "padding": None,
      "added_tokens": [*special_tokens(vocab, True), *tokens],
      "normalizer": None,
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": prefix,
                        "trim_offsets": True, "use_regex": use_regex},
      "post_processor": pair if post == "roberta" else xlmr_template(vocab),
      "decoder": {"type": "ByteLevel", "add_prefix_space": True,
                  "trim_offsets": True, "use_regex": True},
      "model": {"type": "BPE", "dropout": None, "unk_token": None,
                "continuing_subword_prefix": "", "end_of_word_suffix": "",
                "fuse_unk": False, "byte_fallback": False,
                "ignore_merges": False, "vocab": vocab,
                "merges": [" ".join(m) for m in merges] if merges_as_text
                          else merges} | model}


# ---- XLM-R -------------------------------------------------------------------


def xlmr_template(ids):
  special = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
  text = lambda name: {"Sequence": {"id": name, "type_id": 0}}
  single = [special("<s>"), text("A"), special("</s>")]
  return {"type": "TemplateProcessing", "single": single,
          "pair": single + [special("</s>"), text("B"), special("</s>")],
          "special_tokens": {n: {"id": n, "ids": [ids[n]], "tokens": [n]}
                             for n in ("<s>", "</s>")}}


def precompiled(blob):
  return {"type": "Precompiled",
          "precompiled_charsmap": base64.b64encode(blob).decode()}


def replace(pattern, content):
  return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps):
  return {"type": "Sequence", "normalizers": list(steps)}


def metaspace(scheme="always", split=True, replacement="▁"):
  return {"type": "Metaspace", "replacement": replacement,
          "prepend_scheme": scheme, "split": split}


def xlmr_json(normalizer=None, pre=None, tokens=(), extra=(), **model):
  pieces = trained_unigram() + list(extra)
  ids = {piece: i for i, (piece, _) in enumerate(pieces)}
  return {
      "version": "1.0", "truncation": None, "padding": None,
      "added_tokens": [*special_tokens(ids, True), *tokens],
      "normalizer": normalizer, "pre_tokenizer": pre or metaspace(),
      "post_processor": xlmr_template(ids), "decoder": None,
      "model": {"type": "Unigram", "unk_id": 3, "vocab": pieces,
                "byte_fallback": False} | model}
