"""safetensors files of FORMAT.md: reading with all checks, writing."""

import json
import pathlib

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FORMAT_KEY = "svdserve.format"
VERSIONS = ("1", "2")  # 2: heads of other widths than hidden / heads
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# As old checkpoints spell them.
OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


class FormatError(ValueError):
    """A model that FORMAT.md does not describe: says which file or tensor, and why."""


def read_file(path):
    """All tensors of one safetensors file, and its metadata."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: cannot be read: {error}") from None


def read_index(path):
    """The tensors and metadata of each shard that an index names."""
    try:
        shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise FormatError(f"{path}: is no index of shards: {error!r}") from None
    return [(path.parent / shard, *read_file(path.parent / shard)) for shard in shards]


def read_directory(directory):
    """{name: tensor} of a model's directory, its rules on factors checked, and
    the highest version that its files name (None: a dense model).

    Old spellings are today's, buffers are left out. FormatError as FORMAT.md
    says what a reader refuses; sizes are checked against the model, later.
    """
    directory = pathlib.Path(directory)
    if (directory / SINGLE).exists():
        files = [(directory / SINGLE, *read_file(directory / SINGLE))]
    elif (directory / INDEX).exists():
        files = read_index(directory / INDEX)
    else:
        raise FormatError(f"{directory}: has neither {SINGLE} nor {INDEX}")
    result, newest = {}, None
    for path, tensors, metadata in files:
        version = metadata.get(FORMAT_KEY)
        if version is None and any(is_factor(name) for name in tensors):
            raise FormatError(f"{path}: holds factors, but its metadata has no \"{FORMAT_KEY}\"")
        if version is not None and version not in VERSIONS:
            raise FormatError(f"{path}: has \"{FORMAT_KEY}\" {version!r}; known are {', '.join(VERSIONS)}")
        newest = max(filter(None, (newest, version)), default=None)
        for name, tensor in tensors.items():
            if todays_name(name) in result:
                raise FormatError(f"{path}: tensor {name}: is there twice")
            result[todays_name(name)] = tensor
    result = {name: tensor for name, tensor in result.items() if not name.endswith(BUFFERS)}
    check_tensors(result)
    return result, newest


def is_factor(name):
    return name.endswith((".U", ".V"))


def todays_name(name):
    for old, new in OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def check_tensors(tensors):
    """FormatError unless all are floating-point and finite and factors come in pairs."""
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES.values():
            raise FormatError(f"tensor {name}: is {tensor.dtype}; want {', '.join(DTYPES)}")
        if not torch.isfinite(tensor).all():
            raise FormatError(f"tensor {name}: has values that are not finite")
        if not is_factor(name):
            continue
        stem, other = name[:-2], name[:-1] + ("V" if name.endswith("U") else "U")
        if other not in tensors:
            raise FormatError(f"tensor {name}: has no {other}")
        if stem + ".weight" in tensors:
            raise FormatError(f"tensor {stem}.weight: stands beside {stem}.U")
        if tensor.ndim != 2 or 0 in tensor.shape:
            raise FormatError(f"tensor {name}: is no matrix, but {list(tensor.shape)}")
    for name in (n for n in tensors if n.endswith(".U")):
        u, v = tensors[name].shape, tensors[name[:-1] + "V"].shape
        most = min(u[0], v[1])
        if u[1] != v[0] or u[1] > most:
            raise FormatError(f"tensor {name}: U {list(u)} and V {list(v)} must share a rank of 1 to {most}")


def widest_dtype(tensors):
    """The narrowest type that holds the values of all."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    result = dtypes.pop() if dtypes else torch.float32
    for dtype in dtypes:
        result = torch.promote_types(result, dtype)
    return result


def write_file(path, tensors, version):
    """Writes {name: tensor}, all finite, as one safetensors file of FORMAT.md.

    `version`: what the metadata says if there are factors among them. A dense
    file is marked as transformers marks its own.
    """
    check_tensors(tensors)
    # One key: safetensors writes several in random order.
    factored = version != "1" or any(is_factor(name) for name in tensors)
    metadata = {FORMAT_KEY: version} if factored else {"format": "pt"}
    save_file(tensors, path, metadata)


def stored(tensors, dtype=None):
    """Copies that can be written: on the CPU, contiguous, as `dtype` or as they are."""
    result = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().to("cpu", dtype or tensor.dtype, copy=True).contiguous()
        if torch.isfinite(tensor).all() and not torch.isfinite(copy).all():
            raise FormatError(f"tensor {name}: has values too large for {dtype}")
        result[name] = copy
    return result
