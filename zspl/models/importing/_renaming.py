"""Renaming the tensors of a checkpoint by patterns."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

Rules = Sequence[tuple[str, str | None]]
"""Patterns of whole keys and their replacements, `\\1` being a group; None drops the tensor."""


def renamed(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Return the tensors under new names; the first rule that fits a whole key is applied.

    A key that no rule fits keeps its name.
    """
    compiled = [(re.compile(pattern), new) for pattern, new in rules]
    result = {}
    for key, tensor in state.items():
        for pattern, new in compiled:
            if pattern.fullmatch(key):
                if new is not None:
                    result[pattern.sub(new, key)] = tensor
                break
        else:
            result[key] = tensor
    return result
