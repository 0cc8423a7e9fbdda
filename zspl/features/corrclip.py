"""CLIP whose last attention stays inside segments: a patch looks at patches of its segment only.

The idea of Zhang et al., "CorrCLIP: Reconstructing Patch Correlations in CLIP for Open-Vocabulary
Semantic Segmentation", 2024. Unlike the paper, which takes the correlations from DINO, they are
those of the block's own queries and keys, and class tokens refine nothing. The labeler
`region_vote` is the other half.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from zspl.features import _vit
from zspl.features._last_block import Heads, last_block_tokens
from zspl.features._open_clip import ClipEncoder, ClipSettings
from zspl.records import SegmentProposals


class Settings(ClipSettings):
    """Settings of correlations restricted to segments."""

    temperature: float = Field(
        0.25, gt=0, description="Divides the cosines of a patch with its segment's before softmax."
    )


class CorrClip(ClipEncoder):
    """Embeds photos patch by patch, each patch mixed with those of its segment.

    Args:
        settings: The model and the temperature.
    """

    sees_segments = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._temperature = settings.temperature

    def tokens(
        self, pixels: Float[Tensor, "B 3 H W"], proposals: Sequence[SegmentProposals] | None
    ) -> Float[Tensor, "B N D"]:
        """Map normalised images on the device to tokens, CLS first, patches row by row."""
        visual = self.model.visual
        grid, patch = _vit.grid_of(visual, pixels), visual.patch_size[0]
        regions = [patch_regions(found.masks, grid, patch) for found in proposals or ()]
        visible = same_region(torch.stack(regions)).to(pixels.device)

        def attend(heads: Heads) -> Float[Tensor, "B n N d"]:
            return region_attention(heads, visible, temperature=self._temperature)

        return last_block_tokens(self.model, pixels, attend, keep_rest=False)


def build(settings: Settings) -> CorrClip:
    """Return the encoder, whose last block has no residual connection and no MLP.

    Raises:
        SettingsError: if open_clip has no such model or weights.
        WeightsError: if the weights cannot be had.
    """
    return CorrClip(settings)


def patch_regions(
    masks: Bool[Tensor, "N H W"], grid: tuple[int, int], patch: int
) -> Int64[Tensor, " hw"]:
    """Return the segment that each patch belongs to, row by row; N where there is none.

    Where segments overlap, a pixel belongs to the smallest one (as `region_pool` paints), among
    equals to the first one. A patch belongs to the segment that most of its pixels, seen at
    CLIP's input size, belong to. All patches in no segment share one region: they lie around
    and between the segments, and background is what they mostly show.

    Args:
        masks: Segments at the photo's size.
        grid: Patches in the height and the width.
        patch: Side of a patch, in pixels of CLIP's input.
    """
    number = len(masks)
    rows, columns = (
        ((np.arange(cells * patch) + 0.5) * size / (cells * patch)).astype(np.int64)
        for cells, size in zip(grid, masks.shape[1:], strict=True)
    )
    smallest = np.full((len(rows), len(columns)), number, np.int64)
    area = masks.flatten(1).sum(dim=1).numpy()
    pixels = masks.numpy()
    for segment in np.lexsort((-np.arange(number), -area)):
        smallest[pixels[segment][rows][:, columns]] = segment
    patches = smallest.reshape(grid[0], patch, grid[1], patch).transpose(0, 2, 1, 3)
    owners = patches.reshape(grid[0] * grid[1], patch * patch)
    cells = np.arange(len(owners))[:, None] * (number + 1) + owners
    votes = np.bincount(cells.ravel(), minlength=len(owners) * (number + 1))
    return torch.from_numpy(votes.reshape(len(owners), number + 1).argmax(axis=1))


def same_region(regions: Int64[Tensor, "B hw"]) -> Bool[Tensor, "B 1 N N"]:
    """Return which token may look at which, CLS first.

    A patch looks at the patches of its region, not at CLS, which belongs to none; CLS, which
    nobody reads, looks at all.
    """
    patches = regions[:, :, None] == regions[:, None, :]
    visible = F.pad(patches, (1, 0, 1, 0))
    visible[:, 0] = True
    return visible[:, None]


def region_attention(
    heads: Heads, visible: Bool[Tensor, "B 1 N N"], *, temperature: float
) -> Float[Tensor, "B n N d"]:
    """Attend by the mean cosine of two tokens' queries and of their keys, where visible."""
    both = [F.normalize(heads.query, dim=-1), F.normalize(heads.key, dim=-1)]
    joined = torch.cat(both, dim=-1)
    return F.scaled_dot_product_attention(
        joined, joined, heads.value, attn_mask=visible, scale=1 / (len(both) * temperature)
    )
