#!/usr/bin/env python3
"""Writes the seeds: small valid inputs, and near misses of each check.

    python3 tests/fuzz/make_corpus.py     # standard library only
"""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"


def safetensors(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_seeds():
    two = {"__metadata__": {"svdserve.format": "1"},
           "a.U": entry("F32", [2, 1], 0, 8), "a.V": entry("F16", [1, 3], 8, 14)}
    yield "valid", safetensors(two, bytes(range(14)))
    yield "empty", safetensors({}, b"")
    yield "scalar_and_nothing", safetensors(
        {"s": entry("BF16", [], 0, 2), "n": entry("I64", [0, 7], 2, 2)}, b"\0\1")
    yield "padded_header", safetensors(json.dumps(two).encode() + b" " * 13,
                                       bytes(14))
    yield "overlap", safetensors({"a": entry("U8", [4], 0, 4),
                                  "b": entry("U8", [4], 2, 6)}, bytes(6))
    yield "gap", safetensors({"a": entry("U8", [2], 0, 2),
                              "b": entry("U8", [2], 4, 6)}, bytes(6))
    yield "huge_shape", safetensors(
        {"a": entry("F32", [1 << 62, 4, 1 << 32], 0, 0)}, b"")
    yield "past_the_end", safetensors({"a": entry("F32", [2], 0, 8)}, bytes(7))
    yield "header_lies", struct.pack("<Q", 1 << 63) + b"{}"
    yield "duplicate", safetensors(
        b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},'
        b'"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"\0")
    yield "deep", safetensors(b"[" * 100, b"")


CONFIG = {"architectures": ["BertModel"], "hidden_act": "gelu",
          "hidden_size": 64, "intermediate_size": 96, "layer_norm_eps": 1e-12,
          "max_position_embeddings": 80, "model_type": "bert",
          "num_attention_heads": 2, "num_hidden_layers": 2,
          "position_embedding_type": "absolute", "type_vocab_size": 2,
          "vocab_size": 91, "is_decoder": False, "pruned_heads": {}}
ROBERTA = {**CONFIG, "architectures": ["RobertaModel"],
           "model_type": "roberta", "max_position_embeddings": 82,
           "pad_token_id": 1, "type_vocab_size": 1}
DISTILBERT = {"architectures": ["DistilBertModel"], "activation": "gelu",
              "dim": 64, "hidden_dim": 96, "max_position_embeddings": 80,
              "model_type": "distilbert", "n_heads": 2, "n_layers": 2,
              "sinusoidal_pos_embds": False, "vocab_size": 91}
MODULES = [{"idx": i, "name": str(i), "path": path,
            "type": "sentence_transformers.models." + kind}
           for i, (path, kind) in enumerate([
               ("", "Transformer"), ("1_Pooling", "Pooling"),
               ("2_Dense", "Dense"), ("3_Normalize", "Normalize")])]
OLD_POOLING = {"word_embedding_dimension": 64, "pooling_mode_cls_token": False,
               "pooling_mode_mean_tokens": True,
               "pooling_mode_max_tokens": False}
NEW_POOLING = {"embedding_dimension": 64, "pooling_mode": "cls",
               "include_prompt": True}
DENSE = {"in_features": 64, "out_features": 32, "bias": True,
         "activation_function": "torch.nn.modules.activation.Tanh"}
PROMPTS = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
LENGTH = {"max_seq_length": 48, "do_lower_case": False}
TOKENIZER = {"model_max_length": 1e30, "do_lower_case": True}


def config_seeds():
    def joined(*files):
        return b"\0".join(b"" if f is None else json.dumps(f).encode()
                          for f in files)

    yield "plain", joined(CONFIG)
    yield "sentence", joined(CONFIG, MODULES, OLD_POOLING, DENSE, PROMPTS,
                             LENGTH, TOKENIZER)
    yield "new_pooling", joined(CONFIG, MODULES, NEW_POOLING, DENSE)
    yield "two_modes", joined(CONFIG, MODULES,
                              {**NEW_POOLING, "pooling_mode": ["cls", "max"]})
    yield "classifier", joined(
        {**CONFIG, "architectures": ["BertForSequenceClassification"],
         "id2label": {"0": "no", "1": "yes"}}, MODULES[:1])
    yield "roberta", joined(ROBERTA, MODULES, OLD_POOLING, DENSE)
    yield "xlm_roberta_classifier", joined(
        {**ROBERTA, "model_type": "xlm-roberta",
         "architectures": ["XLMRobertaForSequenceClassification"],
         "id2label": {"0": "relevance"}})
    yield "no_positions", joined({**ROBERTA, "pad_token_id": 81})
    yield "distilbert", joined(DISTILBERT, MODULES, NEW_POOLING, DENSE)
    yield "distilbert_keys_of_bert", joined({**CONFIG,
                                             "model_type": "distilbert"})
    yield "odd_heads", joined({**CONFIG, "num_attention_heads": 3})
    yield "wrong_types", joined({**CONFIG, "hidden_size": "64"}, {}, [], 1, None)
    yield "lengths", joined(CONFIG, None, None, None, None,
                            {"max_seq_length": -1}, {"model_max_length": 0.5})


def main():
    for folder, seeds in [("safetensors", safetensors_seeds()),
                          ("config", config_seeds())]:
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
        for name, content in seeds:
            (CORPUS / folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
