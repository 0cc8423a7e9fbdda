"""What the tiny SAM is trained to do.

Shapes: B = images, P = clicks per image, G = patches per side, M = mask pixels per side
(M = 4 G), S = image pixels per side, D = embedding width.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

HALF = 0.5
"""Share of a mask pixel from which on it counts as covered."""


class AuxiliaryHead(nn.Module):
    """Reads outline, foreground and grouping off the image embedding, in training only.

    It gives the encoder a dense signal long before the mask decoder has learned to use a click,
    and is thrown away afterwards.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.Linear(width, 2 * 16)
        self.group = nn.Linear(width, 64)
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def forward(
        self, embedding: Float[Tensor, "B D G G"], instances: Int64[Tensor, "B S S"]
    ) -> Float[Tensor, ""]:
        """Sum the losses of outline, foreground and of which patches belong together.

        Args:
            embedding: What the image encoder gives.
            instances: Number of the object at each pixel, 0 = background.
        """
        tokens = embedding.flatten(2).transpose(1, 2)
        b, grid = len(tokens), embedding.shape[-1]
        logits = self.cells(tokens).view(b, grid, grid, 2, 4, 4)
        logits = logits.permute(3, 0, 1, 4, 2, 5).reshape(2, b, 4 * grid, 4 * grid)
        step = instances.shape[-1] // (4 * grid)
        foreground = F.avg_pool2d((instances > 0).float(), step)
        outline = F.max_pool2d(_borders(instances).float(), step)
        dense = F.binary_cross_entropy_with_logits(logits, torch.stack((foreground, outline)))

        share = F.one_hot(instances, int(instances.max()) + 1).permute(0, 3, 1, 2).float()
        share = F.avg_pool2d(share, step * 4).flatten(2)
        together = (share.transpose(1, 2) @ share).clamp(0.0, 1.0)
        unit = F.normalize(self.group(tokens), dim=-1)
        affinity = self.scale * (unit @ unit.transpose(1, 2)) + self.shift
        return dense + F.binary_cross_entropy_with_logits(affinity, together)


def _borders(instances: Int64[Tensor, "B S S"]) -> Tensor:
    """Mark pixels whose right or lower neighbour belongs to another region."""
    edges = torch.zeros_like(instances, dtype=torch.bool)
    edges[:, :, :-1] |= instances[:, :, :-1] != instances[:, :, 1:]
    edges[:, :-1, :] |= instances[:, :-1, :] != instances[:, 1:, :]
    return edges


def decode(
    sam: "Sam", embedding: Float[Tensor, "B D G G"], clicks: Float[Tensor, "B P 2"]
) -> tuple[Float[Tensor, "N K M M"], Float[Tensor, "N K"]]:
    """Draw masks for several clicks on each of several images, N = B * P.

    `MaskDecoder.predict_masks` takes one image at a time; this is the same computation with the
    embedding of each image repeated for its clicks.

    Args:
        sam: The model.
        embedding: Image embeddings.
        clicks: x and y of each click in pixels of the input image.

    Returns:
        Mask logits and predicted IoU for all K = 4 mask tokens (the first is the single mask).
    """
    decoder, prompts = sam.mask_decoder, sam.prompt_encoder
    per_image = clicks.shape[1]
    coords = clicks.reshape(-1, 1, 2)
    labels = torch.ones(coords.shape[:2], dtype=torch.int64, device=coords.device)
    sparse, dense = prompts(points=(coords, labels), boxes=None, masks=None)
    count = coords.shape[0]
    own = torch.cat((decoder.iou_token.weight, decoder.mask_tokens.weight))
    tokens = torch.cat((own.expand(count, -1, -1), sparse), dim=1)
    image = embedding.repeat_interleave(per_image, dim=0) + dense
    where = prompts.get_dense_pe().expand(count, -1, -1, -1)
    out, image_out = decoder.transformer(image, where, tokens)
    fine = decoder.output_upscaling(image_out.transpose(1, 2).reshape(image.shape))
    filters = torch.stack(
        [mlp(out[:, 1 + k]) for k, mlp in enumerate(decoder.output_hypernetworks_mlps)],
        dim=1,
    )
    masks = (filters @ fine.flatten(2)).unflatten(2, fine.shape[2:])
    return masks, decoder.iou_prediction_head(out[:, 0])


def mask_loss(
    logits: Float[Tensor, "N K M M"],
    quality: Float[Tensor, "N K"],
    target: Float[Tensor, "N M M"],
    *,
    weight: Float[Tensor, "N M M"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Score masks by cross-entropy plus dice and predicted against actual IoU.

    Of the K - 1 multi-mask outputs the best one is trained (Kirillov et al. 2023, section 3),
    the others at a twentieth so that none dies out. Unlike the paper, the focal loss is a weighted
    cross-entropy: its sharper logits suit the stability score.

    Args:
        logits: Mask logits, the single mask first.
        quality: Predicted IoU of each mask.
        target: Share of each mask pixel that the object covers, in [0, 1].
        weight: Weight of each mask pixel in the cross-entropy.

    Returns:
        The loss, and the mean IoU of the best of the multi-mask outputs.
    """
    wanted = target[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    entropy = (entropy * weight[:, None]).mean(dim=(2, 3)) / weight.mean(dim=(1, 2))[:, None]
    chance = logits.sigmoid()
    overlap = (chance * wanted).sum(dim=(2, 3))
    dice = 1 - (2 * overlap + 1) / (chance.sum(dim=(2, 3)) + wanted.sum(dim=(2, 3)) + 1)
    each = 2 * entropy + dice
    multi = each[:, 1:]
    with torch.no_grad():
        drawn, true = logits > 0, wanted > HALF
        union = (drawn | true).sum(dim=(2, 3)).clamp(min=1)
        iou = (drawn & true).sum(dim=(2, 3)) / union
    loss = 0.9 * multi.min(dim=1).values + 0.1 * multi.mean(dim=1) + 0.3 * each[:, 0]
    return loss.mean() + F.mse_loss(quality, iou), iou[:, 1:].amax(dim=1).mean()
