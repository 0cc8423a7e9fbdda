"""Networks of AllSpark's code: AllSpark, its baselines, and UniMatch with SegFormer.

AllSpark's own needs the head `allspark`; the others have the head `segformer`, of which the last
one upsamples its logits with aligned corners: set `align_corners`.
"""

from collections.abc import Mapping, Set

from torch import Tensor

from zspl.models.importing import _segformer
from zspl.models.importing._renaming import renamed

WHAT = "a SegFormer of AllSpark's code"
LICENCE: str | None = _segformer.LICENCE

# The memory serves training alone, and begins anew in another one.
_MEMORY = (r"decoder\.allspark\.attn\.(kv_queue|queue_ptr)", None)
_ADDED = (r"decoder\.(allspark\..+)", r"head.\1")
_INNER = (r"head\.((?!allspark\.).+)", r"head.decoder.\1")


def matches(keys: Set[str]) -> bool:
    """Tell whether a checkpoint with these keys is such a network."""
    return "decoder.decoder.linear_c1.proj.weight" in keys or "linear_c1.proj.weight" in keys


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under zspl's names."""
    prefix = "" if "linear_c1.proj.weight" in state else "decoder.decoder."
    rules = [_MEMORY, _ADDED, *_segformer.encoder("backbone."), *_segformer.decoder(prefix)]
    converted = _segformer.converted(state, rules)
    added = any(key.startswith("head.allspark.") for key in converted)
    return renamed(converted, [_INNER]) if added else converted
