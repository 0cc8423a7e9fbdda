"""UniMatch's DeepLabV3+ with a ResNet or with Xception-65: best.pth and latest.pth of its runs.

FixMatch and the supervised baseline of that code, AllSpark's DeepLabV3+ baseline and other code
built on it write the same names.
"""

from collections.abc import Mapping, Set

from torch import Tensor

from zspl.models.importing._renaming import Rules, renamed
from zspl.models.importing._xception import rules

WHAT = "UniMatch's DeepLabV3+"
LICENCE: str | None = None

_HEAD: Rules = [
    (r"head\.b(\d)\.(.+)", r"head.aspp.branches.\1.\2"),
    (r"head\.project\.(.+)", r"head.aspp.project.\1"),
    (r"(reduce|fuse|classifier)\.(.+)", r"head.\1.\2"),
]


def matches(keys: Set[str]) -> bool:
    """Tell whether a checkpoint with these keys is such a network."""
    return {"head.b0.0.weight", "reduce.0.weight", "classifier.weight"} <= keys


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under zspl's names; those of a ResNet are equal."""
    is_xception = "backbone.block1.sepconv1.depthwise.weight" in state
    return renamed(state, [*_HEAD, *(rules("backbone.") if is_xception else ())])
