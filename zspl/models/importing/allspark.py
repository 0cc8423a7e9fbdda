"""Networks of AllSpark's code: AllSpark, its baselines, and UniMatch with SegFormer.

The last one upsamples its logits with aligned corners: set `align_corners` of the head.
"""

from collections.abc import Mapping, Set

from torch import Tensor

from zspl.models.importing import _segformer

WHAT = "a SegFormer of AllSpark's code"
LICENCE: str | None = _segformer.LICENCE

_ADDED = (r"decoder\.(allspark\..+)", r"head.\1")


def matches(keys: Set[str]) -> bool:
    """Tell whether a checkpoint with these keys is such a network."""
    return "decoder.decoder.linear_c1.proj.weight" in keys or "linear_c1.proj.weight" in keys


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under zspl's names."""
    prefix = "" if "linear_c1.proj.weight" in state else "decoder.decoder."
    rules = [_ADDED, *_segformer.encoder("backbone."), *_segformer.decoder(prefix)]
    return _segformer.converted(state, rules)
