#!/usr/bin/env python3
"""Writes the seeds of tokenizer_fuzz: small valid inputs and near misses.

    python3 tests/engine/text/make_corpus.py     # standard library only
"""

import base64
import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##a", "##b",
         "ab", "##ab", "é", "中", "!", "##aba", "ba"]
TEXT = ("ABba abab 中中é! e\u0301\u1b44\u0301 <t> [MASK] zz"
        "\u00ad\u3000\U0001d15e").encode() + b"\0\xff\xe2\x82 a"


def tokenizer(**parts):
  added = [{"id": 4, "content": "[MASK]", "special": True, "lstrip": True},
           {"id": 16, "content": "<t>", "rstrip": True, "normalized": False},
           {"id": 17, "content": "Ab Ba", "normalized": True,
            "single_word": True}]
  base = {
      "added_tokens": added,
      "normalizer": {"type": "BertNormalizer", "clean_text": True,
                     "handle_chinese_chars": True, "strip_accents": None,
                     "lowercase": True},
      "pre_tokenizer": {"type": "BertPreTokenizer"},
      "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3],
                         "cls": ["[CLS]", 2]},
      "model": {"type": "WordPiece", "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 10,
                "vocab": {t: i for i, t in enumerate(VOCAB)}}}
  return json.dumps(base | parts, ensure_ascii=False).encode()


def byte_char(byte):
  printable = lambda b: 0x21 <= b <= 0x7E or (0xA1 <= b and b != 0xAD)
  if printable(byte):
    return chr(byte)
  return chr(0x100 + sum(not printable(b) for b in range(byte)))


def roberta(**parts):
  names = ["<s>", "<pad>", "</s>", "<unk>"]
  tokens = names + [byte_char(b) for b in range(256)] + ["ab", "Ġa", "aba"]
  base = {
      "added_tokens": [{"content": "<mask>", "lstrip": True, "special": True}],
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True},
      "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2],
                         "cls": ["<s>", 0], "trim_offsets": True,
                         "add_prefix_space": True},
      "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)},
                "merges": ["a b", ["Ġ", "a"], ["ab", "a"]]}}
  return json.dumps(base | parts, ensure_ascii=False).encode()


def charsmap():
  """Maps "b", "c"... up to "p", each to "x\u00e9"."""
  trie = [0] * 1024
  trie[0] = 256 << 10
  for byte in range(0x62, 0x70):
    trie[256 + byte] = byte | 1 << 8 | 512 << 10
    trie[768 + byte] = 1 << 31
  data = struct.pack("<I1024I", 4096, *trie) + "x\u00e9\0".encode()
  return base64.b64encode(data).decode()


def xlmr(**parts):
  base = {
      "added_tokens": [{"content": "<mask>", "lstrip": True, "special": True}],
      "normalizer": {"type": "Sequence", "normalizers": [
          {"type": "Strip", "strip_left": True, "strip_right": True},
          {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
          {"type": "Replace", "pattern": {"String": "A"}, "content": "ab"}]},
      "pre_tokenizer": {"type": "Metaspace", "replacement": "▁",
                        "prepend_scheme": "first"},
      "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": True, "vocab": [
          ["<unk>", 0], ["▁", -1], ["a", -2], ["▁ab", -2.5], ["b", -3],
          ["ba", -3], ["<0xC3>", -9], ["<0xA9>", -9], ["中", -4.25]]}}
  return json.dumps(base | parts, ensure_ascii=False).encode()


def seeds():
  yield "roberta", roberta() + b"\0\0\0" + TEXT
  yield "roberta_no_regex", roberta(pre_tokenizer={
      "type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
  ) + b"\0\0\0" + TEXT + b"ab" * 60
  yield "roberta_files", (
      b"#version\na b\n" + json.dumps(
          json.loads(roberta())["model"]["vocab"]).encode() +
      b'\0{"add_prefix_space":true}\0{"mask_token":{"content":"<unk>"}}\0' +
      TEXT)
  yield "roberta_bad_merge", roberta(model={
      "type": "BPE", "vocab": {"a": 0}, "merges": ["a b c"]})
  yield "xlmr", xlmr() + b"\0\0\0" + TEXT
  yield "xlmr_map", xlmr(normalizer={
      "type": "Precompiled", "precompiled_charsmap": charsmap()},
      pre_tokenizer={"type": "Sequence", "pretokenizers": [
          {"type": "WhitespaceSplit"},
          {"type": "Metaspace", "replacement": "▁"}]}) + b"\0\0\0" + TEXT
  yield "xlmr_bad_map", xlmr(normalizer={
      "type": "Precompiled", "precompiled_charsmap": charsmap()[:400]})
  yield "json", tokenizer() + b"\0\0\0" + TEXT
  yield "json_raw", tokenizer(normalizer=None) + b"\0\0\0" + TEXT
  yield "json_keep_accents", tokenizer(normalizer={
      "type": "BertNormalizer", "clean_text": False, "lowercase": True,
      "handle_chinese_chars": False, "strip_accents": False}) + b"\0\0\0" + TEXT
  template = [{"SpecialToken": {"id": "x", "type_id": 0}},
              {"Sequence": {"id": "A", "type_id": 0}}]
  yield "json_template", tokenizer(post_processor={
      "type": "TemplateProcessing", "single": template,
      "pair": template + [{"Sequence": {"id": "B", "type_id": 1}}],
      "special_tokens": {"x": {"id": "x", "ids": [2, 3], "tokens": []}}}
  ) + b"\0\0\0" + TEXT
  yield "json_bpe", tokenizer(model={"type": "BPE", "vocab": {}})
  yield "json_bad_ids", tokenizer(model={"vocab": {"a": -1}, "unk_token": 3})
  yield "json_cut", tokenizer()[:300]
  yield "json_deep", b"{" + b'"a":{' * 200
  vocab = "\n".join(VOCAB).encode()
  yield "vocab", vocab + b"\0\0\0" + TEXT
  yield "vocab_config", (
      vocab + b'\0{"do_lower_case":false,"strip_accents":true,'
      b'"added_tokens_decoder":{"16":{"content":"<t>"}}}\0'
      b'{"mask_token":{"content":"[MASK]"}}\0' + TEXT)
  yield "vocab_bad_utf8", b"[UNK]\n\xff\n"
  yield "vocab_no_cls", b"[UNK]\na\n"
  yield "vocab_lines", vocab.replace(b"\n", b"\r\n") + b"\r\r\0\0\0" + TEXT


def main():
  CORPUS.mkdir(exist_ok=True)
  for name, data in seeds():
    (CORPUS / name).write_bytes(data)


if __name__ == "__main__":
  main()
