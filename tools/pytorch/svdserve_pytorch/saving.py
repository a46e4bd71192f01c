"""Saving: a transformers or sentence-transformers model as a directory of FORMAT.md."""

import json
import pathlib
import shutil

from transformers import PreTrainedModel

from .checkpoint import INDEX, SINGLE, stored, write_file
from .heads import has_own_widths
from .loading import CLASSES, default_class, read_config
from .output_directory import output_directory

COPIED = (".json", ".txt", ".md", ".model")  # .model: sentencepiece
PIPELINE = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
# What from_pretrained notes in a configuration; no property of the model.
NOTES = ("dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures")


def save(model, target, like, dtype=None, force=False):
    """Writes `model` to the new directory `target`, for svdserve to serve.

    model: what load() or load_sentence_transformer() gave, trained or not (or
      any model of the same classes).
    like: the directory whose configuration, tokenizer and modules it has; they
      are copied. What differs in the configuration (labels) is changed.
    dtype: of all tensors; by default as the model holds them.
    force: replaces a model's directory at `target`.
    FormatError: values that are not finite; FileExistsError: see output_directory.
    """
    like, target = pathlib.Path(like).resolve(), pathlib.Path(target)
    if like == target.resolve() or target.resolve() in like.parents:
        raise FileExistsError(f"{like} is, or lies in, {target}; give another target")
    encoder, modules = split_modules(model, like)
    as_classifier = type(encoder).__name__ == CLASSES[encoder.config.model_type][1]
    with output_directory(target, force) as folder:
        for file in files_of(like, with_pipeline=not as_classifier):
            copy = shutil.copytree if file.is_dir() else shutil.copy
            copy(file, folder / file.name)
        write_config(encoder, like, folder / "config.json")
        version = "2" if has_own_widths(encoder) else "1"
        write_file(folder / SINGLE, stored(encoder.state_dict(), dtype), version)
        for path, module in modules:
            (folder / path).mkdir(exist_ok=True)
            (folder / path / "pytorch_model.bin").unlink(missing_ok=True)
            write_file(folder / path / SINGLE, stored(module.state_dict(), dtype), "1")


def split_modules(model, like):
    """The encoder, and (folder, module) of the pipeline's modules that have weights."""
    if isinstance(model, PreTrainedModel):
        check_type(model, like)
        return model, []
    modules = list(getattr(model, "children", list)())
    encoder = getattr(modules[0], "model", None) if modules else None
    if not isinstance(encoder, PreTrainedModel):
        raise TypeError(f"{type(model).__name__} is neither a transformers model nor a SentenceTransformer")
    check_type(encoder, like)
    listed = read_modules(like)
    weighty = [(i, m) for i, m in enumerate(modules) if i > 0 and m.state_dict()]
    for i, module in weighty:
        if i >= len(listed) or listed[i]["type"].rsplit(".", 1)[-1] != type(module).__name__:
            raise ValueError(f"module {i} is a {type(module).__name__}, which {like / 'modules.json'} does not list")
    return encoder, [(listed[i]["path"], module) for i, module in weighty]


def check_type(model, like):
    ours, theirs = model.config.model_type, read_config(like).model_type
    if ours != theirs:
        raise ValueError(f"the model is of type {ours!r}, but {like} of {theirs!r}")


def read_modules(directory):
    path = directory / "modules.json"
    return json.loads(path.read_text()) if path.exists() else []


def files_of(directory, with_pipeline):
    """Files and folders that belong to a model beside its weights, as svdctl has it."""
    for file in sorted(directory.iterdir()):
        # A report on compression would describe another model.
        if not file.is_file() or file.name in (INDEX, "compression.json", "config.json"):
            continue
        if file.name in PIPELINE and not with_pipeline:
            continue
        if file.suffix in COPIED or file.name.startswith(("LICENSE", "NOTICE")):
            yield file
    for module in read_modules(directory) if with_pipeline else []:
        folder = directory / module["path"]
        if module["path"] and "/" not in module["path"] and folder.is_dir():
            yield folder


def write_config(model, like, path):
    """config.json of `like`, byte for byte where nothing differs."""
    before = read_config(like)
    changes = {key: value for key, value in model.config.to_dict().items()
               if key not in NOTES and before.to_dict().get(key) != value}
    if type(model) is not default_class(before):
        changes["architectures"] = [type(model).__name__]
    if not changes:
        shutil.copy(like / "config.json", path)
        return
    config = json.loads((like / "config.json").read_text())
    path.write_text(json.dumps(config | changes, indent=2) + "\n")
