"""Which transformers this works with, checked before anything else is imported."""

import importlib.metadata

# Since 5.0 the attention modules look the same, and find what they call in
# ALL_ATTENTION_FUNCTIONS, as heads.py does. 5.0.0 and 5.24.0 are tried.
OLDEST, FIRST_UNKNOWN = (5, 0), (6, 0)


def check_versions(transformers=None):
    """ImportError unless `transformers` (by default the installed one's version)
    lies in the range that this package was made for."""
    if transformers is None:
        try:
            transformers = importlib.metadata.version("transformers")
        except importlib.metadata.PackageNotFoundError:
            raise ImportError("svdserve_pytorch needs transformers; "
                              "pip install -r tools/pytorch/requirements.txt") from None
    release = tuple(int(part) for part in transformers.split(".")[:2])
    if not OLDEST <= release < FIRST_UNKNOWN:
        raise ImportError(
            f"svdserve_pytorch works with transformers >= {OLDEST[0]}.{OLDEST[1]} and < {FIRST_UNKNOWN[0]}; "
            f"installed is {transformers}: pip install -r tools/pytorch/requirements.txt")
