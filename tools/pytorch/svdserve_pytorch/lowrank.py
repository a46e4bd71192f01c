"""A linear layer by two factors, and how it takes the place of a dense one."""

import torch
from torch import nn

from .checkpoint import FormatError


class LowRankLinear(nn.Module):
    """y = (x·U)·V + b, with U [in, rank], V [rank, out] and b [out] or none.

    Stands where an nn.Linear stood; its parameters are named as FORMAT.md names
    the tensors. New ones are uninitialised: they are there to be loaded.
    """

    def __init__(self, in_features, out_features, rank, bias=True):
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.U = nn.Parameter(torch.empty(in_features, rank))
        self.V = nn.Parameter(torch.empty(rank, out_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x):
        return nn.functional.linear(x @ self.U, self.V.T, self.bias)

    def extra_repr(self):
        return (f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}, "
                f"bias={self.bias is not None}")


def matrix_size(tensors, name):
    """(in, out, rank) of the matrix `name`, rank None if it is dense; None if absent."""
    if name + ".U" in tensors:
        (size_in, rank), size_out = tensors[name + ".U"].shape, tensors[name + ".V"].shape[1]
        return size_in, size_out, rank
    weight = tensors.get(name + ".weight")
    if weight is None or weight.ndim != 2:
        return None
    return weight.shape[1], weight.shape[0], None


def fit_linears(module, tensors, free_in=(), free_out=()):
    """Gives every nn.Linear of `module` the form that its tensors have.

    The matrices named in `free_in` and `free_out` may have another width there
    than the dense module has; any other difference is a FormatError.
    """
    linears = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    for name in sorted({n[:-2] for n in tensors if n.endswith(".U")} - set(linears)):
        raise FormatError(f"tensor {name}.U: {type(module).__name__} has no matrix {name}")
    for name, layer in linears.items():
        size = matrix_size(tensors, name)
        if size is None:
            continue
        size_in, size_out, rank = size
        if ((size_in != layer.in_features and name not in free_in)
                or (size_out != layer.out_features and name not in free_out)):
            raise FormatError(f"matrix {name}: goes from {size_in} to {size_out}, but the configuration "
                              f"wants {layer.in_features} to {layer.out_features}")
        bias = layer.bias is not None
        if rank is not None:
            module.set_submodule(name, LowRankLinear(size_in, size_out, rank, bias))
        elif (size_in, size_out) != (layer.in_features, layer.out_features):
            module.set_submodule(name, nn.Linear(size_in, size_out, bias))
