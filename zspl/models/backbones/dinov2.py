"""DINOv2 ViT-S/14 and ViT-B/14 (Oquab et al. 2024), UniMatch V2's backbone (methods.md 2.5, 4.5).

All levels have one cell per 14 x 14 pixels; the head `dpt` makes a pyramid of them.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.models.backbones._timm import TimmSettings, create_timm
from zspl.models.network import Encoder
from zspl.models.pretrained import load_backbone_file

PATCH = 14
BLOCKS = 12
TRAINED_AT = 518
OFFSET = 0.1
"""What DINOv2 adds to the cells of a side before it divides, against rounding down."""


class Settings(TimmSettings):
    """Settings of the encoder; `lvd142m` are the published weights (Apache-2.0)."""

    size: Literal["small", "base"] = "small"
    layers: tuple[int, ...] = Field(
        default=(2, 5, 8, 11), min_length=1, description="Blocks whose outputs are the levels."
    )

    @field_validator("layers")
    @classmethod
    def _layers_exist_and_ascend(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if list(layers) != sorted(set(layers) & set(range(BLOCKS))):
            raise ValueError(f"layers must ascend from 0 to {BLOCKS - 1}, got {list(layers)}")
        return layers


class DinoV2(nn.Module):
    """A DINOv2 transformer without registers that returns the normed tokens of some blocks."""

    def __init__(self, network: Any, *, layers: Sequence[int]) -> None:  # noqa: ANN401
        super().__init__()
        self.cls_token: nn.Parameter = network.cls_token
        self.pos_embed: nn.Parameter = network.pos_embed
        self.patch_embed: Any = network.patch_embed
        self.blocks: nn.Sequential = network.blocks
        self.norm: nn.Module = network.norm
        self.layers = tuple(layers)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return one map Float[B C h w] per chosen block, h = H / 14 rounded, at least 1.

        Images of other sides are resized to h * 14, w * 14 first, as UniMatch V2 evaluates.
        """
        grid = tuple(max(1, int(side / PATCH + 0.5)) for side in images.shape[-2:])
        size = tuple(PATCH * cells for cells in grid)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=True)
        patches = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        classes = self.cls_token.expand(len(images), -1, -1)
        x = torch.cat([classes, patches], dim=1) + self._positions(grid[0], grid[1])
        levels = []
        for place, block in enumerate(self.blocks):
            x = block(x)
            if place in self.layers:
                tokens = self.norm(x)[:, 1:]
                levels.append(_as_map(tokens, grid[0], grid[1]))
        return levels

    def _positions(self, height: int, width: int) -> Float[Tensor, "1 N C"]:
        """Return the position embedding for a grid, resampled unless it is the trained one."""
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        if (height, width) == (side, side):
            return self.pos_embed
        trained = _as_map(self.pos_embed[:, 1:], side, side).float()
        scale = ((height + OFFSET) / side, (width + OFFSET) / side)
        patches = F.interpolate(trained, scale_factor=scale, mode="bicubic")
        resampled = patches.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], resampled], dim=1)


def _as_map(
    tokens: Float[Tensor, "B N C"], height: int, width: int
) -> Float[Tensor, "B C height width"]:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, height, width)


def build(settings: Settings) -> Encoder:
    """Build the encoder: one level per entry of `layers`, 384 or 768 channels each.

    Raises:
        WeightsError: if the pretrained weights cannot be had or do not fit.
    """
    options = {"img_size": TRAINED_AT, "num_classes": 0, "init_values": 1.0}
    network: Any = create_timm(f"vit_{settings.size}_patch14_dinov2", settings, options)
    module = DinoV2(network, layers=settings.layers)
    if settings.file is not None:
        load_backbone_file(module, settings.file, sha256=settings.sha256)
    return Encoder(module=module, channels=(network.embed_dim,) * len(settings.layers))
