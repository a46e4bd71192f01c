"""Tokenizers with vocabularies of a few hundred tokens, as Hugging Face's own
classes save them. Trained on the text below; the same in every run."""

import io
import json
import string

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertTokenizerFast, DistilBertTokenizerFast, RobertaTokenizer,
    XLMRobertaTokenizer)

BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ("the a of low rank matrix serves text query document small model "
         "river bank money ##s ##ing ##ed").split()
BERT_VOCAB = (BERT_SPECIAL + list(string.ascii_lowercase) + list(string.digits)
              + list(".,:!?-") + WORDS
              + ["##" + c for c in string.ascii_lowercase])

CORPUS = """\
The small model serves text. A query is a short text: query: low rank
A document of matrix 42! A document is longer than a query, and serves another use.
Money in the river bank? The rivers of text banking: serving, serves, served.
It's a matrix; it isn't the low rank. Don't stop at 3.14, they'd said, we've 2,718.
Größe und naïve Übermut. 東京タワー と 大阪。 Москва и Киев.
""".splitlines()
# A small part of what XLM-R's own table does: code points before, after.
CHARACTER_RULES = ["FF21\t41", "FF22\t42", "FF23\t43",  # full width A, B, C
                   "FB01\t66 69", "2026\t2E 2E 2E",  # fi, ellipsis
                   "A0\t20", "3000\t20",  # spaces
                   "65 301\tE9", "6E 303\tF1"]  # e, n and what goes on top


def _word_piece(tokenizer_class, folder, length):
    (folder / "vocab.txt").write_text("\n".join(BERT_VOCAB) + "\n")
    return tokenizer_class(str(folder / "vocab.txt"), model_max_length=length)


def bert(folder, length):
    return _word_piece(BertTokenizerFast, folder, length)


def distilbert(folder, length):
    return _word_piece(DistilBertTokenizerFast, folder, length)


def roberta(_, length):
    """Byte-level BPE: the 256 bytes and 40 merges."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=len(special) + 256 + 40, special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False))
    vocab = trained.get_vocab()
    vocab["<mask>"] = len(vocab)
    merges = [tuple(merge) for merge in
              json.loads(trained.to_str())["model"]["merges"]]
    return RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=length)


def xlm_roberta(folder, length):
    """Unigram by sentencepiece, in XLM-R's order of ids."""
    rules = folder / "rules.tsv"
    rules.write_text("\n".join(CHARACTER_RULES) + "\n")
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=trained, vocab_size=96,
        model_type="unigram", num_threads=1, normalization_rule_tsv=str(rules),
        minloglevel=2)
    rules.unlink()
    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    # sentencepiece begins with <unk>, <s>, </s>.
    vocab = ([(name, 0.0) for name in ["<s>", "<pad>", "</s>", "<unk>"]]
             + [(piece.piece, piece.score) for piece in proto.pieces[3:]]
             + [("<mask>", 0.0)])
    return XLMRobertaTokenizer(
        vocab=vocab, model_max_length=length,
        _spm_precompiled_charsmap=proto.normalizer_spec.precompiled_charsmap)
