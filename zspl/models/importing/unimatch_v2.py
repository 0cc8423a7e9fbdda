"""UniMatch V2's DINOv2 with DPT: best.pth and latest.pth of its runs."""

from collections.abc import Mapping, Set

from torch import Tensor

from zspl.models.importing._renaming import Rules, renamed

WHAT = "UniMatch V2's DINOv2 with DPT"
LICENCE: str | None = None

# The published forward pass reads neither: a token for masked training, and one residual unit.
_UNUSED: Rules = [
    (r"backbone\.mask_token", None),
    (r"head\.scratch\.refinenet4\.resConfUnit1\..+", None),
]
_UNITS = {"resConfUnit1": "level", "resConfUnit2": "sum", "out_conv": "project"}


def matches(keys: Set[str]) -> bool:
    """Tell whether a checkpoint with these keys is such a network."""
    return "head.scratch.layer1_rn.weight" in keys


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under zspl's names; those of DINOv2 are equal."""
    rules: list[tuple[str, str | None]] = [
        *_UNUSED,
        (r"head\.resize_layers\.(.+)", r"head.resizes.\1"),
        (r"head\.scratch\.output_conv\.0\.(\w+)", r"head.smooth.\1"),
        (r"head\.scratch\.output_conv\.2\.(\w+)", r"head.classifier.\1"),
    ]
    for k in range(4):
        rules.append((rf"head\.scratch\.layer{k + 1}_rn\.weight", f"head.reduces.{k}.weight"))
        for theirs, ours in _UNITS.items():
            new = rf"head.fusions.{k}.{ours}.\1"
            rules.append((rf"head\.scratch\.refinenet{k + 1}\.{theirs}\.(.+)", new))
    return renamed(state, rules)
