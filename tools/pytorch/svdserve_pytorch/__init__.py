"""Factored models (engine/model/FORMAT.md) as PyTorch modules, and back.

    import svdserve_pytorch
    model = svdserve_pytorch.load("models/minilm-half")   # a transformers model
    ...                                                   # train it as any other
    svdserve_pytorch.save(model, "models/minilm-tuned", like="models/minilm-half")
"""

from .versions import check_versions

check_versions()

from .checkpoint import FormatError  # noqa: E402
from .converting import convert  # noqa: E402
from .lowrank import LowRankLinear  # noqa: E402
from .loading import load, model_from_tensors  # noqa: E402
from .saving import save  # noqa: E402
from .sentence import load_sentence_transformer  # noqa: E402

__all__ = ["FormatError", "LowRankLinear", "convert", "load", "load_sentence_transformer",
           "model_from_tensors", "save"]
