"""Weak and strong views out of bytes, on whichever device they lie: `train.views: tensor`.

The draws are those of `pillow` (zspl/data/strong.py), made in the loader by image and step, so
that neither a resume nor the number of processes changes them; only the pixels are computed here,
for all crops at once, in Pillow's 8-bit arithmetic. A value differs from Pillow's by a grey level
now and then; after a turn of the hue, a few pixels differ by more, up to about ten. On a CPU this
is slower than Pillow.

N is a number of views, S the side of a crop, in pixels. Grey levels are whole numbers 0..255 in
float32.
"""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from zspl.data.colour_rows import BLEND, BLENDS, PASSES, REACH
from zspl.data.loading import MEAN, STD
from zspl.records import (
    Batches,
    LabeledBatch,
    LabeledCrops,
    Loaded,
    UnlabeledBatch,
    UnlabeledCrops,
)

_HALF = 0.5 - 2**-13
"""What is added before a blur is cut to whole numbers: in Pillow's fixed point ties go down."""

_DOWN, _ACROSS = 2, 3
"""Axes of views."""


def finished(loaded: Loaded) -> Batches:
    """Return what methods read: normalised views, whatever left the loader, on the same device."""
    labeled, unlabeled, partner = loaded
    return _labeled(labeled), _unlabeled(unlabeled), _unlabeled(partner)


def strong_views(
    crops: Float[Tensor, "N 3 S S"], rows: Float[Tensor, "N K"]
) -> Float[Tensor, "N 3 S S"]:
    """Return a strong view of each crop, in grey levels.

    A view depends on its own crop and row alone, to the bit.

    Args:
        crops: In grey levels.
        rows: What `rows` returned for them.
    """
    sizes = [BLENDS * BLEND, 1, BLENDS * BLEND, 1, REACH + 1]
    before, turn, after, grey, weights = torch.split(rows[..., None, None, None], sizes, dim=1)
    views = _turned(_blended(crops, before), turn[:, 0])
    views = _blended(views, after)
    views = torch.where(grey[:, 0] > 0, _luma(views), views)
    for dim in (_ACROSS, _DOWN):
        for _ in range(PASSES):
            views = _box_blurred(views, weights, dim=dim)
    return views


def _labeled(batch: LabeledBatch | LabeledCrops) -> LabeledBatch:
    if isinstance(batch, LabeledBatch):
        return batch
    return LabeledBatch(image=_normalised(_levels(batch.image)), label=batch.label.long())


def _unlabeled(batch: UnlabeledBatch | UnlabeledCrops | None) -> UnlabeledBatch | None:
    if not isinstance(batch, UnlabeledCrops):
        return batch
    levels, label, sure = _levels(batch.image), batch.zero_shot, batch.zero_shot_confidence
    both = strong_views(levels.repeat_interleave(2, dim=0), batch.colours.flatten(0, 1))
    strong1, strong2 = torch.unflatten(_normalised(both), 0, (-1, 2)).unbind(dim=1)
    return UnlabeledBatch(
        weak=_normalised(levels),
        strong1=strong1.contiguous(),
        strong2=strong2.contiguous(),
        padding=(batch.marks & 1).bool(),
        box1=(batch.marks & 2).bool(),
        box2=(batch.marks & 4).bool(),
        zero_shot=None if label is None else label.long(),
        zero_shot_confidence=None if sure is None else sure.float() / 255,
    )


def _levels(image: UInt8[Tensor, "N S S 3"]) -> Float[Tensor, "N 3 S S"]:
    return image.permute(0, 3, 1, 2).contiguous().float()


def _normalised(levels: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N 3 S S"]:
    mean, std = (levels.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return levels.div(255).sub_(mean).div_(std)


def _luma(views: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N 1 S S"]:
    """Return Pillow's grey: ITU-R 601 in 16-bit fractions, exact in float32."""
    red, green, blue = torch.split(views, 1, dim=1)
    sixteen_bits: Tensor = 19595 * red + 38470 * green + 7471 * blue + 32768
    return sixteen_bits.div_(65536).floor_()


def _blended(
    views: Float[Tensor, "N 3 S S"], blends: Float[Tensor, "N R 1 1 1"]
) -> Float[Tensor, "N 3 S S"]:
    """Move each view away from black, its mean grey or its own grey, one after the other.

    Brightness, contrast and saturation are all `other + factor * (view - other)`.
    """
    for factor, contrast, saturation in zip(
        *(blends[:, k::BLEND].unbind(1) for k in range(BLEND)), strict=True
    ):
        grey = _luma(views)
        other = contrast * _mean(grey) + saturation * grey
        views = (views - other).mul_(factor).add_(other).clamp_(0, 255).floor_()
    return views


def _mean(grey: Float[Tensor, "N 1 S S"]) -> Float[Tensor, "N 1 1 1"]:
    """Return the mean of each view, rounded half up, in whole numbers: the same on any device."""
    total: Int64[Tensor, "N 1 1 1"] = grey.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64)
    count = grey[0].numel()
    return ((2 * total + count) // (2 * count)).float()


def _turned(
    views: Float[Tensor, "N 3 S S"], turn: Float[Tensor, "N 1 1 1"]
) -> Float[Tensor, "N 3 S S"]:
    """Turn the hue by `turn` of 256 steps through 8-bit HSV; a view with -1 stays as it is."""
    red, green, blue = torch.split(views, 1, dim=1)
    value, least = views.amax(dim=1, keepdim=True), views.amin(dim=1, keepdim=True)
    chroma = value - least
    some = chroma.clamp(min=1)
    sixth = torch.where(
        value == red,
        (green - blue) / some % 6,
        torch.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some),
    )
    hue = ((sixth * (255 / 6)).floor_() + turn) % 256 * (6 / 255)
    saturation = (chroma * 255 / value.clamp(min=1)).floor_() / 255
    channels = []
    for offset in (5, 3, 1):
        place = (hue + offset) % 6
        down = torch.minimum(place, 4 - place).clamp_(0, 1)
        channels.append((value * (1 - saturation * down) + 0.5).floor_())
    return torch.where(turn < 0, views, torch.cat(channels, dim=1))


def _box_blurred(
    views: Float[Tensor, "N 3 S S"], weights: Float[Tensor, "N R 1 1 1"], *, dim: int
) -> Float[Tensor, "N 3 S S"]:
    """Blur along one axis with each view's own weights; beyond the edge lies the edge's value."""
    size = views.shape[dim]
    around = (REACH, REACH, 0, 0) if dim == _ACROSS else (0, 0, REACH, REACH)
    wide = F.pad(views, around, mode="replicate")
    total = views * weights[:, 0]
    for k in range(1, REACH + 1):
        both = wide.narrow(dim, REACH - k, size) + wide.narrow(dim, REACH + k, size)
        total += both.mul_(weights[:, k])
    return total.add_(_HALF).floor_()
