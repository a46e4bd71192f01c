"""State dicts that hold factors already, from other tools, as FORMAT.md."""

import fnmatch
import itertools
import pathlib
import pickle
import re

import torch
from torch import nn

from .checkpoint import (
    BUFFERS, DTYPES, FormatError, check_tensors, read_directory, read_file, read_index, stored, todays_name)
from .loading import default_class, model_from_tensors, names_in_model, read_config
from .saving import save

# The factor at x has the sides (in, rank), the other one (rank, out); either may
# be called U, and either may be stored transposed.
INNER, OUTER = ("in,rank", "rank,in"), ("rank,out", "out,rank")
SHAPES = INNER + OUTER
LAYOUTS = [*itertools.product(INNER, OUTER), *itertools.product(OUTER, INNER)]


def convert(state_dict, target, like, u, v, s=None, u_shape=None, v_shape=None, key=None, prefix="",
            ignore=(), fill=False, dtype=None, force=False):
    """Writes the directory `target` of FORMAT.md from a state dict with factors.

    state_dict: a .safetensors file, an index of such (.json), or what torch.save
      wrote (read with weights_only=True); there `key` names the entry that holds
      the tensors, if they are not at the top.
    like: the dense model's directory: configuration, tokenizer, modules. `fill`
      takes tensors that the state dict lacks from its weights.
    u, v, s: names of the factors and of the singular values [rank], with {name}
      for the matrix' name in the model: "{name}.svd_u". √s goes into both factors.
    u_shape, v_shape: one of SHAPES; by default what fits the shapes of all pairs.
    prefix: removed from the names that begin with it.
    ignore: shell patterns of tensors to leave out.
    dtype: of all tensors; by default the widest of those that are there.
    Returns {matrix: rank}. FormatError names tensors that match nothing, shapes
    that do not fit, and leftovers; then nothing is written.
    """
    config = read_config(like)
    tensors = leave_out(read_state_dict(pathlib.Path(state_dict), key), ignore)
    tensors = {todays_name(name.removeprefix(prefix)): t for name, t in tensors.items()}
    pairs, rest = find_pairs(tensors, u, v, s)
    with torch.device("meta"):
        model = default_class(config)(config)
    pairs = names_in_model(model, pairs)
    layout = choose_layout(pairs, linear_sizes(model, pairs), u_shape, v_shape)
    result = names_in_model(model, {n: t for n, t in rest.items() if not n.endswith(BUFFERS)})
    for name, factors in pairs.items():
        result[name + ".U"], result[name + ".V"] = fold(name, factors, layout)
    if fill:
        result = fill_from(names_in_model(model, read_directory(like)[0]), result)
    result = in_dtype(result, dtype)
    save(model_from_tensors(config, result), target, like, force=force)
    return {name: result[name + ".U"].shape[1] for name in sorted(pairs)}


def read_state_dict(path, key=None):
    """{name: tensor} of a file."""
    if path.suffix == ".safetensors":
        return read_file(path)[0]
    if path.suffix == ".json":
        return {name: t for _, tensors, _ in read_index(path) for name, t in tensors.items()}
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise FormatError(f"{path}: cannot be read as tensors alone: {str(error).splitlines()[0]}") from None
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            raise FormatError(f"{path}: has no entry {key!r}; {entries(content)}")
        content = content[key]
    if not isinstance(content, dict) or not all(isinstance(t, torch.Tensor) for t in content.values()):
        raise FormatError(f"{path}: holds more than tensors; {entries(content)}: name the one that holds them by --key")
    return dict(content)


def entries(content):
    if not isinstance(content, dict):
        return f"it is a {type(content).__name__}"
    return "its entries are " + some([str(k) for k, t in content.items() if not isinstance(t, torch.Tensor)]
                                     or [str(k) for k in content])


def some(names):
    """The first of them, for a message."""
    names = list(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def leave_out(tensors, patterns):
    for pattern in patterns:
        matched = fnmatch.filter(tensors, pattern)
        if not matched:
            raise FormatError(f"--ignore {pattern!r} matches no tensor; there are {some(tensors)}")
        tensors = {name: t for name, t in tensors.items() if name not in matched}
    return tensors


def pattern_of(flag, text):
    """'{name}.svd_u' -> a regular expression with a group `name`."""
    if text.count("{name}") != 1:
        raise FormatError(f"{flag} {text!r}: must hold {{name}} once, for the matrix' name")
    before, after = text.split("{name}")
    return re.compile(re.escape(before) + "(?P<name>.+)" + re.escape(after))


def find_pairs(tensors, u, v, s):
    """{matrix: {"u": tensor, "v": tensor, "s": tensor}}, and the other tensors."""
    patterns = {role: (f"--{role}", text) for role, text in (("u", u), ("v", v), ("s", s)) if text is not None}
    pairs, rest = {}, dict(tensors)
    for role, (flag, text) in patterns.items():
        expression = pattern_of(flag, text)
        matched = {name: m["name"] for name in tensors if (m := expression.fullmatch(name))}
        if not matched:
            raise FormatError(f"{flag} {text!r} matches no tensor; there are {some(tensors)}")
        for name, matrix in matched.items():
            if name not in rest:
                raise FormatError(f"tensor {name}: matches {flag} {text!r} and another pattern, too")
            pairs.setdefault(matrix, {})[role] = rest.pop(name)
    for matrix, factors in pairs.items():
        for role, (flag, text) in patterns.items():
            if role not in factors:
                there = ", ".join(patterns[r][1].format(name=matrix) for r in factors)
                raise FormatError(f"matrix {matrix}: has {there}, but no {text.format(name=matrix)} ({flag})")
        if matrix + ".weight" in rest:
            raise FormatError(f"tensor {matrix}.weight: stands beside factors of the same matrix; "
                              f"leave it out by --ignore if they replace it")
    return pairs, rest


def linear_sizes(model, pairs):
    """{matrix: (in, out)} of the dense model."""
    linears = {name: (m.in_features, m.out_features) for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    unknown = sorted(set(pairs) - set(linears))
    if unknown:
        raise FormatError(f"{type(model).__name__} has no matrix {some(unknown)}; its matrices are {some(linears)}")
    return {name: linears[name] for name in pairs}


def choose_layout(pairs, sizes, u_shape, v_shape):
    """The (shape of U, shape of V) that fits all pairs and the user's choice."""
    wanted = [(a, b) for a, b in LAYOUTS if u_shape in (None, a) and v_shape in (None, b)]
    if not wanted:
        raise FormatError(f"--u-shape {u_shape} and --v-shape {v_shape} do not go together: "
                          f"one has to name in and rank, the other rank and out")
    left = wanted
    for name, factors in pairs.items():
        fitting = [layout for layout in wanted if fits(factors, sizes[name], layout)]
        if not fitting:
            size_in, size_out = sizes[name]
            shapes = ", ".join(f"{role} {list(t.shape)}" for role, t in sorted(factors.items()))
            raise FormatError(f"matrix {name}: {shapes} do not fit in = {size_in} and out = {size_out}; tried "
                              f"u and v as " + "; ".join(f"({a}) ({b})" for a, b in wanted))
        left = [layout for layout in left if layout in fitting]
    if len(left) == 1:
        return left[0]
    ways = "; ".join(f"--u-shape {a} --v-shape {b}" for a, b in left)
    raise FormatError(f"the shapes of the {len(pairs)} pairs fit more than one way, say which: {ways}" if left else
                      "no one way fits the shapes of all pairs; convert those of one way at a time")


def fits(factors, size, layout):
    """Whether the shapes are those of `layout`, for a matrix of `size` (in, out)."""
    u, v = factors["u"], factors["v"]
    if u.ndim != 2 or v.ndim != 2:
        return False
    sides = [dict(zip(shape.split(","), t.shape)) for shape, t in zip(layout, (u, v))]
    rank = sides[0]["rank"]
    rest = {k: n for side in sides for k, n in side.items() if k != "rank"}
    return (sides[1]["rank"] == rank <= min(size) and (rest["in"], rest["out"]) == size
            and ("s" not in factors or tuple(factors["s"].shape) == (rank,)))


def fold(name, factors, layout):
    """FORMAT.md's U [in, rank] and V [rank, out], √s in both."""
    by_side = {}
    for shape, tensor in zip(layout, (factors["u"], factors["v"])):
        side = "U" if "in" in shape.split(",") else "V"
        by_side[side] = tensor if shape in ("in,rank", "rank,out") else tensor.T
    if "s" in factors:
        scale = factors["s"].double()
        if (scale < 0).any():
            raise FormatError(f"matrix {name}: has a negative singular value")
        by_side["U"] = (by_side["U"].double() * scale.sqrt()).to(by_side["U"].dtype)
        by_side["V"] = (by_side["V"].double() * scale.sqrt()[:, None]).to(by_side["V"].dtype)
    return by_side["U"].contiguous(), by_side["V"].contiguous()


def fill_from(dense, tensors):
    """`tensors`, and those of the dense model that are not among them, factors
    standing for their matrix."""
    return {name: t for name, t in dense.items() if name.removesuffix("weight") + "U" not in tensors} | tensors


def in_dtype(tensors, dtype):
    """All as `dtype`, where one is chosen; FormatError for what has to be."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise FormatError(f"tensor {name}: is {tensor.dtype}; quantized weights have no place here")
        if dtype is None and tensor.dtype not in DTYPES.values():
            raise FormatError(f"tensor {name}: is {tensor.dtype}; choose one of {', '.join(DTYPES)} by --dtype")
    result = stored(tensors, dtype)
    check_tensors(result)
    return result
