"""The shapes of a backbone's feature maps, found without computing a single one."""

from itertools import chain

import torch
from torch import nn
from torch.func import functional_call


def level_shapes(backbone: nn.Module, side: int) -> list[tuple[int, int, int]]:
    """Return the channels, height and width of each level, finest first.

    The backbone runs once on tensors that have a shape and no values, in evaluation mode, and is
    left as it was.

    Args:
        backbone: Maps Float[B 3 H W] images to feature maps.
        side: Of a square image, in pixels.
    """
    state = {
        name: tensor.detach().to("meta")
        for name, tensor in chain(backbone.named_parameters(), backbone.named_buffers())
    }
    image = torch.empty(1, 3, side, side, device="meta")
    training = {module: module.training for module in backbone.modules()}
    backbone.eval()
    with torch.no_grad():
        levels = functional_call(backbone, state, (image,))
    for module, was in training.items():
        module.training = was
    return [tuple(level.shape[1:]) for level in levels]
