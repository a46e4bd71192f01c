#!/usr/bin/env python3
"""Writes small random models and what Hugging Face computes with them.

    pip install torch transformers sentence-transformers safetensors sentencepiece
    python3 tests/golden/generate.py            # into tests/golden/models

Each model is a complete directory as its library saves it (configuration,
weights, tokenizer) plus golden.json: token ids and the output that transformers
or sentence-transformers gives in float64 from the weights as stored, so that
what is left to explain in a comparison is the error of the other side.
"""

import json
import pathlib
import shutil
from dataclasses import dataclass
from typing import Callable

import numpy
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense, Normalize, Pooling, Transformer)
from transformers import (
    BertConfig, BertForSequenceClassification, BertModel, DistilBertConfig,
    DistilBertForSequenceClassification, DistilBertModel, RobertaConfig,
    RobertaForSequenceClassification, RobertaModel, XLMRobertaConfig,
    XLMRobertaForSequenceClassification, XLMRobertaModel)

import small_tokenizers

OUT = pathlib.Path(__file__).parent / "models"
POSITIONS = 80  # the longest input
LENGTHS = [1, 2, 3, 7, 16, 17, 33, 64, POSITIONS]
TEXTS = [("the small model serves text", None),
         ("Money in the river bank?", None),
         ("query: low rank", "A document of matrix 42!"),
         ("x", "the rivers of text banking: serving, serves")]
# For tokenizers that keep case and know more than English.
WIDE_TEXTS = [("The small model serves text.", None),
              ("Größe \u00a0naïve, ＡＢ：東京  🙂\n", None),
              ("query: low rank", "A document of matrix 42!"),
              (" don't", "they'd stop at 3.14…")]
SIZES = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
             intermediate_size=96, max_position_embeddings=POSITIONS)


@dataclass(frozen=True)
class Family:
    """What differs between the architectures, as transformers has it."""
    config: type
    encoder: type
    classifier: type
    tokenizer: Callable  # (folder, longest input) -> tokenizer
    sizes: dict
    texts: list
    pooler: dict  # how to leave BERT's pooler out
    pad: int | None = None  # never an input: its positions would be others
    types: int = 1

    @property
    def vocab(self):
        return self.sizes["vocab_size"]


BERT = Family(BertConfig, BertModel, BertForSequenceClassification,
              small_tokenizers.bert,
              SIZES | dict(vocab_size=len(small_tokenizers.BERT_VOCAB)), TEXTS,
              pooler=dict(add_pooling_layer=False), types=2)
# RoBERTa's first position is 2.
ROBERTA_SIZES = SIZES | dict(max_position_embeddings=POSITIONS + 2,
                             type_vocab_size=1, layer_norm_eps=1e-5)
ROBERTA = Family(RobertaConfig, RobertaModel, RobertaForSequenceClassification,
                 small_tokenizers.roberta, ROBERTA_SIZES | dict(vocab_size=301),
                 WIDE_TEXTS, pooler=dict(add_pooling_layer=False), pad=1)
XLM_ROBERTA = Family(XLMRobertaConfig, XLMRobertaModel,
                     XLMRobertaForSequenceClassification,
                     small_tokenizers.xlm_roberta,
                     ROBERTA_SIZES | dict(vocab_size=98), WIDE_TEXTS,
                     pooler=dict(add_pooling_layer=False), pad=1)
DISTILBERT = Family(DistilBertConfig, DistilBertModel,
                    DistilBertForSequenceClassification,
                    small_tokenizers.distilbert,
                    dict(dim=64, n_layers=2, n_heads=2, hidden_dim=96,
                         max_position_embeddings=POSITIONS,
                         vocab_size=len(small_tokenizers.BERT_VOCAB)),
                    TEXTS, pooler={})


def randomize(module, seed):
    """Weights that make every part matter: attention far from uniform, LayerNorm
    far from identity, every bias used."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if name.lower().replace("_", "").endswith("layernorm.weight"):
                p.copy_(1 + 0.2 * noise)
            elif p.ndim == 1:
                p.copy_(0.2 * noise)
            elif "embeddings" in name:
                p.copy_(0.5 * noise)
            else:
                p.copy_(1.3 * noise / p.shape[1] ** 0.5)


def save_tokenizer(family, folder):
    tokenizer = family.tokenizer(folder, POSITIONS)
    tokenizer.save_pretrained(folder)
    return tokenizer


def factor(weight, rank):
    """[out, in] -> U [in, rank], V [rank, out]."""
    u, s, vt = torch.linalg.svd(weight.T.double(), full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vt[:rank]


def factored(tensors, ranks):
    """Replaces NAME.weight by NAME.U and NAME.V for (suffix of NAME, rank)."""
    result = {}
    for name, weight in tensors.items():
        rank = next((r for n, r in ranks.items() if name.endswith(n + ".weight")),
                    None)
        if rank is None:
            result[name] = weight
            continue
        u, v = factor(weight, rank)
        base = name.removesuffix("weight")
        result[base + "U"], result[base + "V"] = u.contiguous(), v.contiguous()
    return result


def stored_as_dense(tensors):
    """What a dense implementation needs to compute the same, in float64."""
    result = {}
    for name, tensor in tensors.items():
        tensor = tensor.double() if tensor.is_floating_point() else tensor
        if name.endswith(".U"):
            v = tensors[name[:-1] + "V"].double()
            result[name[:-1] + "weight"] = (tensor @ v).T.contiguous()
        elif not name.endswith(".V"):
            result[name] = tensor
    return result


def head_dims(layer):
    """Other widths of heads than hidden / heads: of query and key, of value."""
    return [(32, 48), (16, 64)][layer]


def narrower(tensors, heads):
    """Attention's matrices and biases cut to head_dims(), from each head its
    first columns."""
    result = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if ".attention." in name and "LayerNorm" not in name:
            qk, v = head_dims(int(parts[2]))
            width = qk if parts[-2] in ("query", "key") else v
            if parts[-2] == "dense" and parts[-1] == "weight":
                tensor = tensor.unflatten(1, (heads, -1))[:, :, :width].flatten(1)
            elif parts[-2] != "dense":
                tensor = tensor.unflatten(0, (heads, -1))[:, :width].flatten(0, 1)
        result[name] = tensor
    return result


def widened(tensors, heads, seed):
    """The inverse, in float64, as far as attention goes: heads of hidden / heads
    columns whose query·key and value·output are those of narrower ones. With
    orthonormal rows M [narrow, wide], q·M·(k·M)ᵀ = q·kᵀ and v·M·(Mᵀ·o) = v·o."""
    generator = torch.Generator().manual_seed(seed)
    hidden = tensors["embeddings.word_embeddings.weight"].shape[1]
    bases = {}
    result = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        result[name] = tensor
        is_output = parts[-2:] == ["dense", "weight"]
        if (".attention." not in name or "LayerNorm" in name
                or parts[-2] == "dense" and not is_output):
            continue
        qk, v = head_dims(int(parts[2]))
        kind = "qk" if parts[-2] in ("query", "key") else "v"
        key = (parts[2], kind)
        if key not in bases:
            square = torch.randn(heads, hidden // heads, hidden // heads,
                                 generator=generator, dtype=torch.float64)
            bases[key] = torch.linalg.qr(square)[0][:, :qk if kind == "qk" else v]
        rotate = (lambda t: torch.einsum("hn...,hnw->hw...", t, bases[key])
                  .flatten(0, 1))
        if is_output:
            result[name] = rotate(tensor.T.unflatten(0, (heads, -1))).T.contiguous()
        else:
            result[name] = rotate(tensor.unflatten(0, (heads, -1)))
    return result


def legacy_names(tensors):
    """As TensorFlow checkpoints were once converted."""
    result = {}
    for name, tensor in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        result["bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    result["bert.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    return result


def random_inputs(family, seed, limit):
    generator = numpy.random.default_rng(seed)
    for length in LENGTHS:
        if length > limit:
            break
        ids = generator.integers(0, family.vocab, length)
        ids[ids == family.pad] = family.vocab - 1
        # Zeros, then ones.
        second = int(generator.integers(0, length + 1))
        if family.types == 1:
            second = length
        yield {"ids": ids.tolist(),
               "type_ids": [0] * second + [1] * (length - second)}


def text_inputs(family, tokenizer, prompts, pairs):
    for text, pair in family.texts:
        if pair is not None and not pairs:
            continue  # sentence-transformers embeds single texts
        for prompt, prefix in (prompts or {"": ""}).items():
            encoding = tokenizer(prefix + text, pair)
            ids = encoding["input_ids"]
            item = {"text": text, "ids": ids,
                    "type_ids": encoding.get("token_type_ids", [0] * len(ids))}
            if pair is not None:
                item["pair"] = pair
            if prompt:
                item["prompt"] = prompt
            yield item


def as_batch(family, item):
    ids = torch.tensor([item["ids"]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if family.types > 1:
        batch["token_type_ids"] = torch.tensor([item["type_ids"]])
    return batch


def round_output(row):
    return [float(f"{x:.9g}") for x in row.tolist()]


def write_golden(folder, family, seed, forward, tokenizer, prompts=None,
                 pairs=True, limit=POSITIONS):
    """`forward` maps a batch of one to its output, [1, width]."""
    items = [*random_inputs(family, seed, limit),
             *text_inputs(family, tokenizer, prompts or {}, pairs)]
    for item in items:
        assert len(item["ids"]) <= limit
        with torch.no_grad():
            item["output"] = round_output(forward(as_batch(family, item))[0])
    lines = ",\n".join(json.dumps(item) for item in items)
    (folder / "golden.json").write_text(f'{{"inputs": [\n{lines}\n]}}\n')


def fresh(name):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def store(folder, tensors, dtype, shards=1, metadata=None):
    """Replaces the folder's weights by these, cast to `dtype`."""
    tensors = {n: (t.to(dtype) if t.is_floating_point() else t).contiguous()
               for n, t in tensors.items()}
    # One key at most: safetensors writes several in random order.
    metadata = metadata or {"format": "pt"}
    (folder / "model.safetensors").unlink(missing_ok=True)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata)
        return tensors
    weight_map = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {n: t for i, (n, t) in enumerate(sorted(tensors.items()))
                if i % shards == shard}
        save_file(part, folder / name, metadata)
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    return tensors


def encoder(name, seed, family=BERT, dtype=torch.float32, ranks=None,
            legacy=False, shards=1, **options):
    """A directory of an encoder; returns folder, tokenizer and the float64
    model with the weights as they were stored."""
    folder = fresh(name)
    model = family.encoder(family.config(**family.sizes | options),
                           **family.pooler)
    randomize(model, seed)
    tokenizer = save_tokenizer(family, folder)
    model.save_pretrained(folder)
    tensors = factored(model.state_dict(), ranks or {})
    metadata = {"svdserve.format": "1"} if ranks else None
    stored = store(folder, legacy_names(tensors) if legacy else tensors, dtype,
                   shards, metadata)
    exact = {n: stored["bert." + n.replace("LayerNorm.weight", "LayerNorm.gamma")
                       .replace("LayerNorm.bias", "LayerNorm.beta")]
             for n in tensors} if legacy else stored
    model = model.double().eval()
    model.load_state_dict(stored_as_dense(exact))
    return folder, tokenizer, model


def plain_encoder(name, seed, family=BERT, **options):
    """No modules.json: mean pooling, as sentence-transformers would add."""
    folder, tokenizer, model = encoder(name, seed, family, **options)
    write_golden(folder, family, seed,
                 lambda batch: model(**batch).last_hidden_state.mean(dim=1),
                 tokenizer)


def narrow_heads(name, seed, ranks, dtype):
    """Heads of other widths, format 2, some matrices factored besides. What
    Hugging Face runs is the dense model of which they are the exact reduction."""
    folder = fresh(name)
    heads = 2
    config = BertConfig(**BERT.sizes | dict(hidden_size=128,
                                            num_attention_heads=heads))
    model = BertModel(config, **BERT.pooler)
    randomize(model, seed)
    tokenizer = save_tokenizer(BERT, folder)
    model.save_pretrained(folder)
    stored = store(folder, factored(narrower(model.state_dict(), heads), ranks),
                   dtype, metadata={"svdserve.format": "2"})
    model = model.double().eval()
    model.load_state_dict(widened(stored_as_dense(stored), heads, seed))
    write_golden(folder, BERT, seed,
                 lambda batch: model(**batch).last_hidden_state.mean(dim=1),
                 tokenizer)


def sentence_model(name, seed, pooling, family=BERT, dense=(), normalize=False,
                   prompts=None, default_prompt=None, max_seq_length=None,
                   old_files=False, **options):
    """Saved by sentence-transformers itself, then its weights replaced."""
    folder, tokenizer, stored = encoder(name, seed, family, **options)
    weights = {f.name: f.read_bytes() for f in folder.glob("model*")}
    width = stored.config.hidden_size
    scratch = OUT / "scratch"
    shutil.copytree(folder, scratch)
    family.encoder(stored.config, **family.pooler).save_pretrained(scratch)
    modules = [Transformer(str(scratch), max_seq_length=max_seq_length),
               Pooling(width, pooling)]
    for i, (out, activation) in enumerate(dense):
        layer = Dense(width, out, bias=i == 0, activation_function=activation)
        randomize(layer, seed + 1 + i)
        modules.append(layer)
        width = out
    if normalize:
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, prompts=prompts,
                                default_prompt_name=default_prompt, device="cpu")
    model.save(str(folder), create_model_card=False)
    shutil.rmtree(scratch)
    (folder / "model.safetensors").unlink()
    for file, content in weights.items():
        (folder / file).write_bytes(content)
    if old_files:
        write_old_files(folder, pooling, max_seq_length)
    model = model.double().eval()
    missing, unexpected = model[0].model.load_state_dict(stored.state_dict(),
                                                         strict=False)
    assert not unexpected and all("pooler" in name for name in missing)
    write_golden(folder, family, seed,
                 lambda batch: model(batch)["sentence_embedding"],
                 tokenizer, prompts, pairs=False,
                 limit=max_seq_length or POSITIONS)


def write_old_files(folder, pooling, max_seq_length):
    """As sentence-transformers 2 spelled modules, pooling and length."""
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = ("sentence_transformers.models."
                          + module["type"].rsplit(".", 1)[1])
    (folder / "modules.json").write_text(json.dumps(modules, indent=2))
    flags = {f"pooling_mode_{mode}": mode.rpartition("_")[0] == pooling
             for mode in ["cls_token", "mean_tokens", "max_tokens",
                          "mean_sqrt_len_tokens"]}
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 64, **flags}, indent=2))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": max_seq_length, "do_lower_case": False}))
    shutil.rmtree(folder / "3_Normalize", ignore_errors=True)


def classifier(name, seed, labels, family=BERT, dtype=torch.float32, ranks=None,
               **options):
    folder = fresh(name)
    config = family.config(id2label=dict(enumerate(labels)),
                           label2id={n: i for i, n in enumerate(labels)},
                           **family.sizes | options)
    model = family.classifier(config)
    randomize(model, seed)
    tokenizer = save_tokenizer(family, folder)
    model.save_pretrained(folder)
    stored = store(folder, factored(model.state_dict(), ranks or {}), dtype,
                   metadata={"svdserve.format": "1"} if ranks else None)
    model = model.double().eval()
    model.load_state_dict(stored_as_dense(stored))
    write_golden(folder, family, seed, lambda batch: model(**batch).logits,
                 tokenizer)


EVERY = {"attention.self.query": 13, "attention.self.key": 16,
         "attention.self.value": 24, "attention.output.dense": 20,
         "intermediate.dense": 25, "layer.0.output.dense": 32,
         "layer.1.output.dense": 7}
SOME = {"layer.0.attention.self.query": 16, "layer.0.attention.self.key": 16,
        "layer.0.attention.self.value": 16,
        "layer.0.attention.output.dense": 16,
        "layer.0.intermediate.dense": 19, "layer.1.attention.self.key": 8,
        "layer.1.output.dense": 21}
NARROW = {"layer.0.attention.self.key": 40,
          "layer.0.attention.self.value": 48,
          "layer.1.attention.self.query": 24,
          "layer.1.attention.output.dense": 56, "intermediate.dense": 30}
DISTILBERT_EVERY = {"q_lin": 13, "k_lin": 16, "v_lin": 24, "out_lin": 20,
                    "lin1": 25, "layer.0.ffn.lin2": 32, "layer.1.ffn.lin2": 7}


def main():
    torch.manual_seed(0)
    OUT.mkdir(exist_ok=True)
    f16, bf16 = torch.float16, torch.bfloat16
    identity = torch.nn.Identity()
    sentence_model("mean_normalize", 1, "mean", normalize=True,
                   prompts={"query": "query: ", "passage": "text: ",
                            "document": ""},
                   default_prompt="query", max_seq_length=64)
    sentence_model("cls_head64", 2, "cls", num_attention_heads=1,
                   hidden_act="gelu_new", layer_norm_eps=1e-5)
    sentence_model("max_dense", 3, "max", normalize=True, hidden_act="relu",
                   dense=[(32, torch.nn.Tanh()), (24, identity)])
    sentence_model("mean_old_files", 4, "mean", normalize=True,
                   max_seq_length=48, old_files=True, legacy=True,
                   num_hidden_layers=1)
    plain_encoder("plain_f16", 5, dtype=f16)
    plain_encoder("head64_bf16", 6, dtype=bf16, hidden_size=128,
                  intermediate_size=160, num_hidden_layers=1)
    plain_encoder("sharded_head16", 7, dtype=f16, num_attention_heads=4,
                  num_hidden_layers=1, shards=2)
    plain_encoder("head128_f16", 8, dtype=f16, hidden_size=128,
                  num_attention_heads=1, num_hidden_layers=1,
                  intermediate_size=64)
    classifier("rerank_1_label", 9, ["relevance"])
    classifier("classify_2_labels_f16", 10, ["NEGATIVE", "POSITIVE"], dtype=f16,
               hidden_act="gelu_pytorch_tanh")
    classifier("classify_5_labels_bf16", 11, ["A", "B", "C", "D", "E"],
               dtype=bf16, hidden_act="relu")
    sentence_model("factored", 12, "mean", normalize=True, ranks=EVERY)
    sentence_model("mixed_bf16", 13, "cls", ranks=SOME, dtype=bf16,
                   dense=[(48, torch.nn.GELU())])
    classifier("classify_factored", 14, ["no", "maybe", "yes"], dtype=f16,
               ranks={**EVERY, "pooler.dense": 9}, hidden_act="gelu_new")
    narrow_heads("narrow_heads_f16", 15, NARROW, f16)
    sentence_model("roberta", 16, "mean", ROBERTA, normalize=True,
                   max_seq_length=64)
    classifier("roberta_classify_factored", 17, ["no", "maybe", "yes"], ROBERTA,
               dtype=f16, ranks={**EVERY, "classifier.dense": 9})
    sentence_model("xlm_roberta_factored", 18, "cls", XLM_ROBERTA, ranks=EVERY,
                   normalize=True, prompts={"query": "query: ",
                                            "passage": "passage: "})
    classifier("xlm_roberta_rerank", 19, ["relevance"], XLM_ROBERTA, dtype=bf16,
               hidden_act="gelu_new")
    plain_encoder("distilbert_factored", 20, DISTILBERT, ranks=DISTILBERT_EVERY,
                  activation="relu")
    classifier("distilbert_classify", 21, ["NEGATIVE", "POSITIVE"], DISTILBERT,
               n_layers=1, sinusoidal_pos_embds=True)


if __name__ == "__main__":
    main()
