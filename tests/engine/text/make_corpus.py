#!/usr/bin/env python3
"""Writes the seeds of tokenizer_fuzz: small valid inputs and near misses.

    python3 tests/engine/text/make_corpus.py     # standard library only
"""

import json
import pathlib

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


def seeds():
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
