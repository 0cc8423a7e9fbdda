"""Mix Transformers of NVIDIA on ImageNet: the files mit_b0.pth to mit_b5.pth."""

from collections.abc import Mapping, Set

from torch import Tensor

from zspl.models.importing import _segformer
from zspl.models.importing._renaming import renamed

WHAT = "NVIDIA's Mix Transformer"
LICENCE: str | None = _segformer.LICENCE

_IMAGENET = (r"head\.(weight|bias)", None)


def matches(keys: Set[str]) -> bool:
    """Tell whether a checkpoint with these keys is such a backbone."""
    return "patch_embed1.proj.weight" in keys


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under zspl's names, without ImageNet's classifier."""
    return renamed(state, [_IMAGENET, *_segformer.encoder("")])
