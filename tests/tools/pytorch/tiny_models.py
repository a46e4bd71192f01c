"""Small random models, factored, and dense ones that compute the same.

The directories are written by hand, not by the module under test; the dense
models are plain transformers classes with U·V multiplied out, and where heads
have other widths with zeros for what they lack.
"""

import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/golden/models"

HIDDEN, HEADS, INNER, LAYERS, VOCAB = 64, 2, 96, 2, 50
WIDTH = HIDDEN // HEADS
TYPES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "distilbert": "DistilBert"}
BERT_PARTS = {"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
              "out": "attention.output.dense", "ffn_in": "intermediate.dense", "ffn_out": "output.dense"}
DISTILBERT_PARTS = {"query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin",
                    "out": "attention.out_lin", "ffn_in": "ffn.lin1", "ffn_out": "ffn.lin2"}
RANKS = {"query": 3, "key": 4, "value": 5, "out": 6, "ffn_in": 7}  # ffn_out stays dense


def config_of(model_type, **options):
    if model_type == "distilbert":
        return transformers.DistilBertConfig(vocab_size=VOCAB, dim=HIDDEN, n_layers=LAYERS, n_heads=HEADS,
                                             hidden_dim=INNER, max_position_embeddings=40, dropout=0.0,
                                             attention_dropout=0.0, seq_classif_dropout=0.0, **options)
    cls = getattr(transformers, TYPES[model_type] + "Config")
    return cls(vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
               intermediate_size=INNER, max_position_embeddings=40, hidden_dropout_prob=0.0,
               attention_probs_dropout_prob=0.0, **options)


def class_of(model_type, classifier=False):
    return getattr(transformers, TYPES[model_type] + ("ForSequenceClassification" if classifier else "Model"))


def dense_model(model_type, classifier=False, seed=0):
    """Random weights that make every part matter, in float32."""
    torch.manual_seed(seed)
    model = class_of(model_type, classifier)(config_of(model_type, **({"num_labels": 3} if classifier else {})))
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn_like(p)
            norm = p.ndim == 1 and name.lower().endswith("norm.weight")
            p.copy_(1 + 0.2 * noise if norm else 0.2 * noise if p.ndim == 1 else 1.3 * noise / p.shape[1] ** 0.5)
    return model.eval()


def parts(model):
    """{name of a matrix in the model: kind} of all layers."""
    table = DISTILBERT_PARTS if model.config.model_type == "distilbert" else BERT_PARTS
    kinds = {path: kind for kind, path in table.items()}
    found = {}
    for name, _ in model.named_modules():
        before, at, path = name.partition(".layer.")
        index, _, rest = path.partition(".")
        if at and index.isdigit() and rest in kinds:
            found[name] = kinds[rest]
    return found


def resized(matrix, width):
    """[HEADS * WIDTH, ...] -> [HEADS * width, ...]: each head is cut, in `matrix`
    by zeros, or padded with zeros."""
    heads = matrix.unflatten(0, (HEADS, WIDTH))
    heads[:, width:] = 0
    more = torch.zeros(HEADS, max(0, width - WIDTH), *matrix.shape[1:])
    return torch.cat([heads[:, :width], more], dim=1).flatten(0, 1)


def factor(model, d_qk=None, d_v=None, ranks=RANKS):
    """Tensors of FORMAT.md, and `model` changed to compute the same, dense."""
    tensors = {name: t.clone() for name, t in model.state_dict().items()}
    widths = {"query": d_qk or WIDTH, "key": d_qk or WIDTH, "value": d_v or WIDTH, "out": d_v or WIDTH}
    for name, kind in parts(model).items():
        layer, rank = model.get_submodule(name), ranks.get(kind)
        weight, bias = layer.weight.detach().T.clone(), layer.bias.detach()  # [in, out]
        u = torch.randn(layer.in_features, rank) / layer.in_features ** 0.5 if rank else weight
        v = torch.randn(rank, layer.out_features) if rank else torch.eye(layer.out_features)
        ours_u, ours_v = u, v
        if kind == "out":
            ours_u = resized(u, widths[kind])
        elif kind in widths:
            ours_v, bias = resized(v.T, widths[kind]).T, resized(bias, widths[kind])
        with torch.no_grad():
            layer.weight.copy_((u.double() @ v.double()).T)
        del tensors[name + ".weight"]
        tensors[name + ".bias"] = bias.clone()
        if rank:
            tensors[name + ".U"], tensors[name + ".V"] = ours_u.contiguous(), ours_v.contiguous()
        else:
            tensors[name + ".weight"] = (ours_u @ ours_v).T.contiguous()
    return tensors


def write_model(folder, model, tensors, version="1"):
    """A directory with a configuration, weights and something for a tokenizer."""
    folder.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    (folder / "tokenizer.json").write_text('{"stands": "for a tokenizer"}')
    (folder / "README.md").write_text("A tiny model.\n")
    metadata = {"svdserve.format": version} if any(n.endswith(".U") for n in tensors) else {"format": "pt"}
    save_file(tensors, folder / "model.safetensors", metadata)
    return folder


def batch(seed=5):
    """Two inputs, one of them padded."""
    ids = torch.randint(3, VOCAB, (2, 9), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    ids[1, 6:], mask[1, 6:] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def output(model, inputs):
    """Logits, or the hidden states of what is not padding."""
    result = model(**inputs)
    return result.logits if "logits" in result else result.last_hidden_state[inputs["attention_mask"].bool()]
