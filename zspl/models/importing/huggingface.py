"""SegFormers and Mix Transformers of Hugging Face: nvidia/segformer-b*, nvidia/mit-b*.

Their code adds 1e-5 to the variance in every layer norm, NVIDIA's and ours 1e-6 in the blocks:
the outputs differ by 2e-5 (methods.md 4.4).
"""

from collections.abc import Mapping, Set

import torch
from torch import Tensor

from zspl.models.importing import _segformer
from zspl.models.importing._renaming import Rules

WHAT = "a SegFormer of Hugging Face"
LICENCE: str | None = _segformer.LICENCE

_STAGE = "segformer.encoder."
_IMAGENET = (r"classifier\.(weight|bias)", None)


def _encoder() -> Rules:
    rules: list[tuple[str, str | None]] = []
    for k in range(4):
        ours, embed = f"backbone.encoder.block{k + 1}", f"backbone.encoder.patch_embed{k + 1}"
        theirs = rf"segformer\.encoder\.block\.{k}\.(\d+)\."
        rules += [
            (rf"segformer\.encoder\.patch_embeddings\.{k}\.proj\.(\w+)", rf"{embed}.proj.\1"),
            (rf"segformer\.encoder\.patch_embeddings\.{k}\.layer_norm\.(\w+)", rf"{embed}.norm.\1"),
            (rf"segformer\.encoder\.layer_norm\.{k}\.(\w+)", rf"backbone.encoder.norm{k + 1}.\1"),
            (rf"{theirs}layer_norm_([12])\.(\w+)", rf"{ours}.\1.norm\2.\3"),
            (rf"{theirs}attention\.self\.query\.(\w+)", rf"{ours}.\1.attn.q.\2"),
            (rf"{theirs}attention\.self\.(kv|sr)\.(\w+)", rf"{ours}.\1.attn.\2.\3"),
            (rf"{theirs}attention\.self\.layer_norm\.(\w+)", rf"{ours}.\1.attn.norm.\2"),
            (rf"{theirs}attention\.output\.dense\.(\w+)", rf"{ours}.\1.attn.proj.\2"),
            (rf"{theirs}mlp\.dense([12])\.(\w+)", rf"{ours}.\1.mlp.fc\2.\3"),
            (rf"{theirs}mlp\.dwconv\.dwconv\.(\w+)", rf"{ours}.\1.mlp.dwconv.dwconv.\2"),
        ]
    return rules


_DECODER: Rules = [
    (r"decode_head\.linear_c\.(\d)\.proj\.(\w+)", r"head.linears.\1.\2"),
    (r"decode_head\.linear_fuse\.weight", "head.fuse.weight"),
    (r"decode_head\.batch_norm\.(\w+)", r"head.bn.\1"),
    (r"decode_head\.classifier\.(\w+)", r"head.classifier.\1"),
]


def matches(keys: Set[str]) -> bool:
    """Tell whether a checkpoint with these keys is such a network or encoder."""
    return f"{_STAGE}patch_embeddings.0.proj.weight" in keys


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under zspl's names; keys and values of attention become one matrix."""
    joined = {}
    for key, tensor in state.items():
        if ".self.key." in key:
            value = state.get(key.replace(".key.", ".value."))
            both = [tensor] if value is None else [tensor, value]
            joined[key.replace(".key.", ".kv.")] = torch.cat(both)
        elif ".self.value." not in key:
            joined[key] = tensor
    return _segformer.converted(joined, [_IMAGENET, *_encoder(), *_DECODER])
