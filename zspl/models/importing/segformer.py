"""SegFormers of NVIDIA's own code: segformer.b0.512x512.ade.160k.pth and the like."""

from collections.abc import Mapping, Set

from torch import Tensor

from zspl.models.importing import _segformer

WHAT = "NVIDIA's SegFormer"
LICENCE: str | None = _segformer.LICENCE

# mmsegmentation gives every decoder a second classifier, which SegFormer's never calls.
_UNUSED = (r"decode_head\.conv_seg\.(weight|bias)", None)


def matches(keys: Set[str]) -> bool:
    """Tell whether a checkpoint with these keys is such a network."""
    return "decode_head.linear_c1.proj.weight" in keys


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under zspl's names."""
    rules = [_UNUSED, *_segformer.encoder("backbone."), *_segformer.decoder("decode_head.")]
    return _segformer.converted(state, rules)
