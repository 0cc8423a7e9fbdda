"""The names of NVIDIA's SegFormer, which AllSpark's code and others keep behind prefixes."""

from collections.abc import Mapping

from torch import Tensor

from zspl.models.importing._renaming import Rules, renamed

LICENCE = "NVIDIA-SegFormer"
"""Of NVIDIA's MiT weights and of all that is trained from them."""

LINEAR = 2
"""Dimensions of a weight that has no height and width yet."""


def encoder(prefix: str) -> Rules:
    """Return the rules for the encoder's keys that begin with `prefix`."""
    parts = r"((?:patch_embed|block|norm)[1-4]\..+)"
    return [(prefix.replace(".", r"\.") + parts, r"backbone.encoder.\1")]


def decoder(prefix: str) -> Rules:
    """Return the rules for the decoder's keys that begin with `prefix`."""
    before = prefix.replace(".", r"\.")
    linears: Rules = [
        (rf"{before}linear_c{k}\.proj\.(\w+)", rf"head.linears.{k - 1}.\1") for k in range(1, 5)
    ]
    return [
        *linears,
        (rf"{before}linear_fuse\.conv\.weight", "head.fuse.weight"),
        (rf"{before}linear_fuse\.bn\.(\w+)", r"head.bn.\1"),
        (rf"{before}linear_pred\.(\w+)", r"head.classifier.\1"),
    ]


def converted(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Rename the tensors, and give the decoder's linear maps the shape of 1x1 convolutions."""
    return {
        key: tensor[:, :, None, None]
        if key.startswith("head.linears.") and tensor.ndim == LINEAR
        else tensor
        for key, tensor in renamed(state, rules).items()
    }
