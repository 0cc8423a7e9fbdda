"""A classifier of which classes each patch of an image holds (Howlader et al. 2024).

Patches lie four pixels apart, as the cells of a backbone's finest level, and each is 39 pixels
wide: cell i looks at the pixels 4i - 19, ..., 4i + 19 (methods.md 3.2). B images, K classes, S the
side of a crop, and h = w = ceil(S / 4) cells.
"""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.io import processes
from zspl.models.heads.deeplabv3plus import conv_bn_relu
from zspl.records import IGNORE_INDEX

STRIDE = 4
"""Pixels from one patch to the next."""

REACH = 19
"""Pixels that a patch reaches beyond its centre, on each side."""

SCALES = (7, 19)
"""Cells on a side of the squares whose mean joins each cell's own feature."""

POOL_STRIDES = (2, 1, 1, 2, 1, 1, 1)
"""Of the 3x3 maxima whose chain is the maximum over a patch, every fourth pixel."""

LEARNING_POWER = 1.5
"""Of what a class has learned since it was known worst, in the growth of its noise rate."""


class PatchClassifier(nn.Module):
    """Convolutions on the finest level at three scales, then two linear maps per cell."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        widths: tuple[int, int, int] = (256, 128, 64),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        scales = (1 + len(SCALES)) * channels
        wide, middle, narrow = widths
        layers = [(1, scales), (3, wide), (1, wide), (3, wide), (3, wide), (1, middle)]
        layers += [(3, middle), (3, middle), (1, narrow), (3, narrow)]
        inputs = [scales, *(width for _, width in layers)]
        self.convolutions = nn.Sequential(
            *(
                module
                for given, (kernel, width) in zip(inputs, layers, strict=False)
                for module in conv_bn_relu(given, width, kernel=kernel)
            )
        )
        self.linears = nn.Sequential(
            nn.Conv2d(narrow, narrow // 2, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(narrow // 2, num_classes, 1),
        )

    def pyramid(self, level: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """Return each cell's feature and its means over larger squares, D = 3 C channels.

        Beyond the image there are zeros, which count.
        """
        means = [F.avg_pool2d(level, side, 1, side // 2) for side in SCALES]
        return torch.cat([level, *means], dim=1)

    def forward(self, pyramid: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K h w"]:
        """Return a logit for each class and patch."""
        logits: Tensor = self.linears(self.convolutions(pyramid))
        return logits


def cells(side: int) -> int:
    """Return the patches on a side of a crop of `side` pixels."""
    return -(-side // STRIDE)


def _one_hot(label: Int64[Tensor, "B S S"], num_classes: int) -> Float[Tensor, "B K S S"]:
    """Return 1 at each pixel's class, and nothing where the label is 255."""
    index = label.masked_fill(label == IGNORE_INDEX, num_classes).unsqueeze(1)
    shape = (len(label), num_classes + 1, *label.shape[1:])
    return torch.zeros(shape, device=label.device).scatter_(1, index, 1.0)[:, :num_classes]


def patch_labels(label: Int64[Tensor, "B S S"], num_classes: int) -> Float[Tensor, "B K h w"]:
    """Return 1 for each class that a patch holds, else 0; 255 is no class."""
    held = _one_hot(label, num_classes)
    for stride in POOL_STRIDES:
        held = F.max_pool2d(held, 3, stride, 1)
    return held


def patch_weights(label: Int64[Tensor, "B S S"], num_classes: int) -> Float[Tensor, "B K h w"]:
    """Return the softmax over the classes of their shares of a patch, which sum to 1.

    As in the published code the share is taken over 38 pixels, not 39; pixels beyond the crop do
    not count, those with label 255 do.
    """
    held = _one_hot(label, num_classes)
    shares = F.avg_pool2d(held, 2 * REACH, STRIDE, REACH, count_include_pad=False)
    height, width = (cells(side) for side in label.shape[1:])
    return shares[..., :height, :width].softmax(dim=1)


def without(
    label: Int64[Tensor, "B S S"], flagged: Bool[Tensor, "B K h w"]
) -> Int64[Tensor, "B S S"]:
    """Return the label with 255 wherever a patch reaches that is flagged for the pixel's class."""
    result = label.clone()
    for class_id in flagged.any(dim=3).any(dim=2).any(dim=0).nonzero()[:, 0].tolist():
        result[(label == class_id) & _reached(flagged[:, class_id], label.shape[-1])] = IGNORE_INDEX
    return result


def _reached(patches: Bool[Tensor, "B h w"], side: int) -> Bool[Tensor, "B S S"]:
    """Return the pixels that any of the patches reaches."""
    centres = torch.zeros(len(patches), 1, side, side, device=patches.device)
    centres[:, 0, ::STRIDE, ::STRIDE] = patches.float()
    rows = F.max_pool2d(centres, (2 * REACH + 1, 1), 1, (REACH, 0))
    return F.max_pool2d(rows, (1, 2 * REACH + 1), 1, (0, REACH))[:, 0] > 0


def doubts(
    logits: Float[Tensor, "U K h w"], held: Bool[Tensor, "U K h w"], rate: Float[Tensor, " K"]
) -> Bool[Tensor, "U K h w"]:
    """Return the claims that the classifier finds least likely.

    Of the n patches of a batch that are said to hold a class, those are doubted whose loss is
    above the k-th highest, k = ceil(n rate): the k - 1 highest ones, if no two are equal.

    Args:
        logits: Of the patch classifier.
        held: The claims.
        rate: Noise rate of each class, in [0, 1].
    """
    loss = F.softplus(-logits.float()).masked_fill(~held, -math.inf)
    ordered = loss.transpose(0, 1).flatten(1).sort(dim=1, descending=True).values
    count = held.sum(dim=(0, 2, 3))
    kth = (count * rate.double()).ceil().long().clamp(min=1) - 1
    limit = ordered.gather(1, kth[:, None]).view(1, -1, 1, 1)
    return held & (loss > limit)


def patch_loss(
    logits: Float[Tensor, "B K h w"],
    label: Int64[Tensor, "B S S"],
    keep: Bool[Tensor, "B K h w"],
) -> Float[Tensor, ""]:
    """Return the weighted mean binary cross-entropy over patches and classes.

    Args:
        logits: Of the patch classifier.
        label: Class ids of the pixels, 255 where nothing is claimed.
        keep: False for a patch and class that do not teach.
    """
    classes = logits.shape[1]
    each = F.binary_cross_entropy_with_logits(
        logits.float(), patch_labels(label, classes), reduction="none"
    )
    weights = patch_weights(label, classes) * keep
    # Where several processes share a batch, the mean of their losses is that of the whole.
    among = processes.mean(weights.sum())
    return (weights * each).sum() / among.clamp(min=torch.finfo(among.dtype).tiny)


class NoiseRates(nn.Module):
    """The share of each class's claims to doubt, which grows with what is learned of the class."""

    rate: Tensor
    missed: Tensor
    counted: Tensor
    worst: Tensor
    worst_epoch: Tensor

    def __init__(self, num_classes: int, rate: float) -> None:
        super().__init__()
        self.register_buffer("rate", torch.full((num_classes,), rate))
        for name in ("missed", "counted", "worst", "worst_epoch"):
            self.register_buffer(name, torch.zeros(num_classes))

    @torch.no_grad()
    def note(self, logits: Float[Tensor, "B K h w"], held: Float[Tensor, "B K h w"]) -> None:
        """Add the probability that labeled patches miss for the classes that they hold."""
        missed = ((1 - logits.float().sigmoid()) * held).sum(dim=(0, 2, 3))
        both = processes.total(torch.stack([missed, held.sum(dim=(0, 2, 3))]))
        self.missed += both[0]
        self.counted += both[1]

    @torch.no_grad()
    def close_epoch(self, epoch: int, *, epochs: float, decay: float, limit: float) -> None:
        """Raise the rates, and begin a new mean.

        The growth is ((m - l) / m)^1.5 decay^((e - e_m) / epochs), with l the mean of epoch e and
        m the highest mean so far, of epoch e_m. A class without patches in the epoch waits.

        Args:
            epoch: The epoch that ends, from 0.
            epochs: Of the training.
            decay: Factor on the growth after all epochs, in (0, 1].
            limit: No rate grows beyond it.
        """
        seen = self.counted > 0
        latest = self.missed / self.counted.clamp(min=1)
        higher = seen & (latest > self.worst)
        self.worst.copy_(torch.where(higher, latest, self.worst))
        self.worst_epoch.masked_fill_(higher, epoch)
        tiny = torch.finfo(latest.dtype).tiny
        learned = ((self.worst - latest) / self.worst.clamp(min=tiny)).clamp(0, 1)
        growth = learned.pow(LEARNING_POWER) * decay ** ((epoch - self.worst_epoch) / epochs)
        grown = torch.maximum(self.rate, (self.rate + growth).clamp(max=limit))
        self.rate.copy_(torch.where(seen, grown, self.rate))
        self.missed.zero_()
        self.counted.zero_()
