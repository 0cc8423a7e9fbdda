"""Mix Transformers of mmsegmentation: its mit_b*.pth, and the encoder of its SegFormers.

Its decoder is another one, with batch norm and ReLU at every level, and fits no head of zspl.
"""

from collections.abc import Mapping, Set

from torch import Tensor

from zspl.models.importing import _segformer
from zspl.models.importing._renaming import Rules, renamed

WHAT = "mmsegmentation's Mix Transformer"
LICENCE: str | None = _segformer.LICENCE

_POINTWISE = ("fc1.weight", "fc2.weight")


def matches(keys: Set[str]) -> bool:
    """Tell whether a checkpoint with these keys is such an encoder or network."""
    return any(f"{prefix}layers.0.0.projection.weight" in keys for prefix in ("", "backbone."))


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under zspl's names.

    Attention's one matrix becomes two, and 1x1 convolutions become linear maps.
    """
    result: dict[str, Tensor] = {}
    for key, tensor in renamed(state, _rules()).items():
        if ".attn.in_proj_" in key:
            kind, width = key.rpartition("_")[2], len(tensor) // 3
            block = key.partition("in_proj_")[0]
            result |= {f"{block}q.{kind}": tensor[:width], f"{block}kv.{kind}": tensor[width:]}
        else:
            result[key] = tensor.flatten(1) if key.endswith(_POINTWISE) else tensor
    return result


def _rules() -> Rules:
    rules: list[tuple[str, str | None]] = [(r"decode_head\.(.+)", r"head.\1")]
    for k in range(4):
        ours, stage = "backbone.encoder", rf"(?:backbone\.)?layers\.{k}\."
        block = rf"{ours}.block{k + 1}.\1"
        rules += [
            (rf"{stage}0\.projection\.(\w+)", rf"{ours}.patch_embed{k + 1}.proj.\1"),
            (rf"{stage}0\.norm\.(\w+)", rf"{ours}.patch_embed{k + 1}.norm.\1"),
            (rf"{stage}2\.(\w+)", rf"{ours}.norm{k + 1}.\1"),
            (rf"{stage}1\.(\d+)\.(norm[12])\.(\w+)", rf"{block}.\2.\3"),
            (rf"{stage}1\.(\d+)\.attn\.attn\.in_proj_(\w+)", rf"{block}.attn.in_proj_\2"),
            (rf"{stage}1\.(\d+)\.attn\.attn\.out_proj\.(\w+)", rf"{block}.attn.proj.\2"),
            (rf"{stage}1\.(\d+)\.attn\.(sr|norm)\.(\w+)", rf"{block}.attn.\2.\3"),
            (rf"{stage}1\.(\d+)\.ffn\.layers\.0\.(\w+)", rf"{block}.mlp.fc1.\2"),
            (rf"{stage}1\.(\d+)\.ffn\.layers\.1\.(\w+)", rf"{block}.mlp.dwconv.dwconv.\2"),
            (rf"{stage}1\.(\d+)\.ffn\.layers\.4\.(\w+)", rf"{block}.mlp.fc2.\2"),
        ]
    return rules
