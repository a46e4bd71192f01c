"""Loading: a sentence-transformers directory whose matrices are factored."""

import contextlib
import pathlib
import tempfile

import torch
import transformers
from safetensors.torch import save_file

from .checkpoint import INDEX, SINGLE, is_factor, read_directory, widest_dtype
from .lowrank import fit_linears, matrix_size
from .loading import CLASSES, load, read_config
from .saving import files_of, read_modules


def load_sentence_transformer(directory, dtype=None, device=None):
    """A SentenceTransformer with the encoder of load() and the pipeline (pooling,
    Dense, Normalize, prompts) of `directory`; mean pooling where it has none.

    dtype, FormatError: as in load(), over the whole pipeline. device: as in
    SentenceTransformer.
    """
    from sentence_transformers import SentenceTransformer  # not needed otherwise
    directory = pathlib.Path(directory)
    encoder_class = CLASSES[read_config(directory).model_type][0]
    encoder = load(directory, getattr(transformers, encoder_class))
    factored = factored_modules(directory)
    with stand_in(directory, encoder, factored) as folder, quiet():
        pipeline = SentenceTransformer(str(folder), device=device)
    device = pipeline.device
    pipeline[0].model = encoder
    for index, tensors in factored.items():
        fit_linears(pipeline[index], tensors)
        pipeline[index].load_state_dict(tensors)
    dtype = dtype or widest_dtype(pipeline.state_dict())
    return pipeline.to(device=device, dtype=dtype).eval()


def factored_modules(directory):
    """{index: tensors} of the Dense modules that are factored."""
    result = {}
    for index, module in enumerate(read_modules(directory)):
        folder = directory / module["path"]
        if index == 0 or not ((folder / SINGLE).exists() or (folder / INDEX).exists()):
            continue
        tensors, _ = read_directory(folder)
        if any(is_factor(name) for name in tensors):
            result[index] = tensors
    return result


@contextlib.contextmanager
def stand_in(directory, encoder, factored):
    """A directory that sentence-transformers, which knows no factors, can load:
    that of the model with one tensor of its encoder, which is then replaced as
    a whole, and with dense zeros for the Dense modules that are."""
    modules = read_modules(directory)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for file in [directory / "config.json", *files_of(directory, with_pipeline=True)]:
            (folder / file.name).symlink_to(file.resolve())
        name, tensor = next((n, t) for n, t in encoder.state_dict().items() if t.ndim == 1)
        save_file({name: tensor.contiguous()}, folder / SINGLE, {"format": "pt"})
        for index, tensors in factored.items():
            path = folder / modules[index]["path"]
            path.unlink()
            path.mkdir()
            (path / "config.json").symlink_to((directory / path.name / "config.json").resolve())
            save_file(dense_zeros(tensors), path / SINGLE, {"format": "pt"})
        yield folder


def dense_zeros(tensors):
    result = {name: tensor for name, tensor in tensors.items() if not is_factor(name)}
    for stem in (name[:-2] for name in tensors if name.endswith(".U")):
        size_in, size_out, _ = matrix_size(tensors, stem)
        result[stem + ".weight"] = torch.zeros(size_out, size_in)
    return result


@contextlib.contextmanager
def quiet():
    """Without the report that most weights of the stand-in are new."""
    logs = transformers.logging
    verbosity, bar = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(verbosity)
        if bar:
            logs.enable_progress_bar()
