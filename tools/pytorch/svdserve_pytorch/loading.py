"""Loading: a directory of FORMAT.md as a transformers model."""

import logging
import pathlib

import torch
import transformers

from .checkpoint import FORMAT_KEY, FormatError, read_directory, widest_dtype
from .heads import attention_modules, fit_heads, has_own_widths
from .lowrank import fit_linears

logger = logging.getLogger(__name__)

# model_type: the class without a head, the class with a classifier.
CLASSES = {
    "bert": ("BertModel", "BertForSequenceClassification"),
    "roberta": ("RobertaModel", "RobertaForSequenceClassification"),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaForSequenceClassification"),
    "distilbert": ("DistilBertModel", "DistilBertForSequenceClassification"),
}
ENCODER = ("embeddings", "encoder", "transformer")  # the rest are heads
HEADS = ("cls", "classifier", "pre_classifier", "pooler", "lm_head", "qa_outputs",
         "vocab_transform", "vocab_layer_norm", "vocab_projector")


def load(directory, model_class=None, dtype=None, **config_changes):
    """The model of `directory`, dense or factored, ready for inference (.eval()).

    model_class: a class of transformers; by default the one that config.json
      names if that is a sequence classifier, else the encoder alone. What it
      has beside the encoder and the directory lacks (a new classifier) is
      initialised and named in a warning.
    dtype: of all parameters; by default as stored, the widest if they differ.
      Train in torch.float32.
    config_changes: such as num_labels=3.
    FormatError: what FORMAT.md refuses, by file or tensor.
    """
    config = read_config(directory, **config_changes)
    tensors, version = read_directory(directory)
    model = model_from_tensors(config, tensors, model_class, dtype)
    if has_own_widths(model) and version != "2":
        raise FormatError(f"{directory}: has heads of other widths than hidden / heads, which needs "
                          f"\"{FORMAT_KEY}\" \"2\" in the metadata")
    return model


def read_config(directory, **changes):
    directory = pathlib.Path(directory)
    if not (directory / "config.json").is_file():
        raise FormatError(f"{directory}: has no config.json: not a model's directory")
    config = transformers.AutoConfig.from_pretrained(directory, **changes)
    if config.model_type not in CLASSES:
        raise FormatError(f"{directory / 'config.json'}: model_type {config.model_type!r}; "
                          f"known are {', '.join(CLASSES)}")
    if getattr(config, "is_decoder", False):
        raise FormatError(f"{directory / 'config.json'}: is_decoder; only encoders are factored")
    return config


def default_class(config):
    encoder, classifier = CLASSES[config.model_type]
    return getattr(transformers, classifier if classifier in (config.architectures or []) else encoder)


def model_from_tensors(config, tensors, model_class=None, dtype=None):
    """load() for tensors that are in memory already, under FORMAT.md's names,
    with or without the prefix of the encoder's class."""
    own_class = default_class(config)
    model_class = model_class or own_class
    # transformers adds a pooler to an encoder unless told not to.
    options = {}
    if model_class.__name__ == CLASSES[config.model_type][0] and config.model_type != "distilbert":
        options["add_pooling_layer"] = any("pooler." in name for name in tensors)
    model = model_class(config, **options)
    tensors = names_in_model(model, tensors)
    names = [n for _, n in attention_modules(model)]
    fit_linears(model, tensors, free_in={n[3] for n in names}, free_out={m for n in names for m in n[:3]})
    fit_heads(model)
    check_names(model, tensors, may_be_new=model_class is not own_class)
    dtype = dtype or widest_dtype(tensors)
    try:
        model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # it names all sizes that differ
        raise FormatError(str(error)) from None
    return model.to(dtype).eval()


def names_in_model(model, tensors):
    """The tensors under the names of `model`'s parameters; without the heads of
    other tasks."""
    prefix = model.base_model_prefix + "."
    top = {name for name, _ in model.named_children()}
    inside = {name for name, _ in model.base_model.named_children()}
    is_encoder = model.base_model is model
    result = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(prefix)
        first = bare.split(".")[0]
        if first in HEADS and first not in top | inside:
            continue
        target = prefix + bare if first in inside and not is_encoder else bare
        if target in result:
            raise FormatError(f"tensor {bare}: is there with and without the prefix {prefix}")
        result[target] = tensor
    return result


def check_names(model, tensors, may_be_new):
    """FormatError for tensors without a place and parameters without a tensor."""
    expected = set(model.state_dict())
    unknown = sorted(set(tensors) - expected)
    if unknown:
        raise FormatError(f"tensors that {type(model).__name__} has no place for: {', '.join(unknown)}")
    missing = sorted(expected - set(tensors))
    prefix = model.base_model_prefix + "."
    needed = [name for name in missing
              if not may_be_new or name.removeprefix(prefix).split(".")[0] in ENCODER]
    if needed:
        raise FormatError(f"tensors that are missing: {', '.join(needed)}")
    if missing:
        logger.warning("new in %s, to be trained: %s", type(model).__name__, ", ".join(missing))
