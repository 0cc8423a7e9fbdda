"""Random SAM weights draw noise, so both sides of a comparison get the same seeded masks.

The networks run as they are; after the mask product their scores and logits are replaced by
those of `SeededMasks`, which depend only on how many prompts came before. A share of the scores
passes 0.88, about half of the masks the stability 0.95. Also the random models themselves.
"""

import dataclasses

import numpy as np
import torch

PASSING_IOU = 0.88


class SeededMasks:
    """Scores and elliptic blobs, three for every prompt."""

    def __init__(self, *, seed=0, share=0.35, prompts=1024):
        draw = np.random.default_rng(seed).random((prompts, 3, 6), dtype=np.float32)
        draw = torch.from_numpy(draw)
        self.scores = 1 - draw[..., 0] * (1 - PASSING_IOU) / share
        self.places = draw[..., 1:3]
        self.radii = 0.5 * (0.02 / 0.5) ** draw[..., 3:5]
        self.steepness = 10 * 12 ** draw[..., 5]

    def logits(self, prompts, side):
        """The three blobs of some prompts, in [P, 3, side, side]."""
        prompts = prompts % len(self.scores)
        grid = (torch.arange(side) + 0.5) / side
        away = (grid - self.places[prompts][..., None]) / self.radii[prompts][..., None]
        y, x = away.square().unbind(2)
        heights = 1 - y[..., :, None] - x[..., None, :]
        return self.steepness[prompts][..., None, None] * heights

    def scores_of(self, first, count):
        """The scores of `count` prompts."""
        return self.scores[torch.arange(first, first + count) % len(self.scores)]


def hook_official(sam, seeded):
    """Make a `Sam` draw the seeded masks; returns it."""
    forward = sam.mask_decoder.forward
    seen = [0]

    def forward_seeded(**given):
        logits, scores = forward(**given)
        first, count = seen[0], len(scores)
        seen[0] += count
        logits = seeded.logits(torch.arange(first, first + count), logits.shape[-1])
        return logits, seeded.scores_of(first, count)

    sam.mask_decoder.forward = forward_seeded
    return sam


def hook_ours(generator, seeded):
    """Make our generator draw the seeded masks; returns it."""
    decoder = generator.decoder
    decode, draw = decoder.decode, decoder.draw
    seen, first = [0], [0]

    def decode_seeded(scene, prompts):
        decoded = decode(scene, prompts)
        first[0], count = seen[0], len(prompts)
        seen[0] += count
        return dataclasses.replace(decoded, scores=seeded.scores_of(first[0], count))

    def draw_seeded(decoded, prompts, *, rows):
        logits = draw(decoded, prompts, rows=rows)
        return seeded.logits(prompts + first[0], logits.shape[-1])[:, :, : logits.shape[-2]]

    decoder.decode, decoder.draw = decode_seeded, draw_seeded
    return generator


def vit_b(seed=0):
    """A SAM ViT-B with random weights, relative positions included."""
    from segment_anything import sam_model_registry

    torch.manual_seed(seed)
    return _shaken(sam_model_registry["vit_b"]())


def small_sam(seed=0, *, side=1024, mlp=2048):
    """A SAM with a small encoder and the true decoder, random weights."""
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    torch.manual_seed(seed)
    grid = side // 16
    encoder = ImageEncoderViT(
        img_size=side,
        embed_dim=32,
        depth=2,
        num_heads=2,
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1,),
    )
    prompts = PromptEncoder(
        embed_dim=256,
        image_embedding_size=(grid, grid),
        input_image_size=(side, side),
        mask_in_chans=16,
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=mlp)
    decoder = MaskDecoder(transformer_dim=256, transformer=transformer)
    return _shaken(Sam(encoder, prompts, decoder))


def _shaken(model):
    """Give every bias, norm and position a value of its own: many begin as 0 or 1."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale = 0.2 if "rel_pos" in name else 0.02
            value.add_(torch.randn_like(value), alpha=scale)
    return model.eval().requires_grad_(requires_grad=False)
