"""SAM's mask generator, stage by stage at the sizes of ViT-B, and whole on the tiny SAM.

The whole generator at true size takes minutes: `python benches/peak_memory.py`.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import seeded_masks
import torch
from PIL import Image

from zspl.proposals import _sam_encoder, sam
from zspl.proposals._sam_decoder import Decoder
from zspl.proposals._sam_masks import Canvas, Cutoffs

SHARED = Path(os.environ.get("ZSPL_SHARED", Path(__file__).parents[2] / "shared"))
TINY = {"points_per_side": 8, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.7}
FIRST_WINDOW, FIRST_GLOBAL = 0, 2


@pytest.fixture(scope="module")
def vit_b():
    return seeded_masks.vit_b()


@pytest.fixture(scope="module")
def photo():
    """A photo of 500 x 375, or blocks of colour where there is none."""
    files = sorted((SHARED / "data" / "coco128" / "train2017").glob("*.jpg"))
    if files:
        return Image.open(files[0]).convert("RGB").resize((500, 375))
    blocks = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    return Image.fromarray(blocks).resize((500, 375), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("index", "bound"), [(FIRST_WINDOW, None), (FIRST_GLOBAL, 1.7)], ids=["window", "global"]
)
@torch.no_grad()
def bench_encoder_block(compare, vit_b, index, bound, request):
    block = vit_b.image_encoder.blocks[index]
    tokens = torch.randn(1, 64, 64, 768)
    compare(
        f"encoder block, {request.node.callspec.id}",
        lambda: block(tokens),
        lambda: _sam_encoder.run_block(block, tokens),
        bound=bound,
        pairs=2,
    )


@torch.no_grad()
def bench_decoder(compare, vit_b):
    embedding, prompts = torch.randn(256, 64, 64), torch.randn(8, 2, 256)
    dense = vit_b.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand(8, -1, 64, 64)

    def reference():
        logits, _ = vit_b.mask_decoder(
            image_embeddings=embedding[None],
            image_pe=vit_b.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return logits

    decoder = Decoder(vit_b)
    scene = decoder.look_at(embedding)

    def ours():
        drawn = []
        for prompt in prompts.split(1):
            decoded = decoder.decode(scene, prompt)
            drawn.append(decoder.draw(decoded, torch.arange(1), rows=64))
        return torch.cat(drawn)

    compare("decoder, 8 prompts, all masks", reference, ours, bound=2.5, pairs=3)


@pytest.mark.parametrize("size", [(375, 500), (1200, 1800)], ids=["500x375", "1800x1200"])
@torch.no_grad()
def bench_masks(compare, vit_b, size, request):
    from segment_anything.utils import amg

    low = seeded_masks.SeededMasks().logits(torch.arange(16), 256).flatten(0, 1)
    scale = 1024 / max(size)
    seen = (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))

    def reference():
        logits = vit_b.postprocess_masks(low[None], seen, size)[0]
        stable = amg.calculate_stability_score(logits, 0.0, 1.0) >= 0.5  # noqa: PLR2004
        masks = logits[stable] > 0
        amg.batched_mask_to_box(masks)
        return np.stack([amg.rle_to_mask(rle) for rle in amg.mask_to_rle_pytorch(masks)])

    def ours():
        canvas = Canvas((256, 256), side=1024, seen=seen, size=size, device=torch.device("cpu"))
        drawn = canvas.draw(low, Cutoffs(mask=0.0, offset=1.0, least=0.5))
        masks = np.zeros((len(drawn.outlines), *size), bool)
        for mask, outline in zip(masks, drawn.outlines, strict=True):
            outline.paint(mask)
        return masks

    compare(
        f"48 masks of {request.node.callspec.id} from their logits",
        reference,
        ours,
        parity=_differing_pixels,
        bound=2.5,
    )


def bench_generator_tiny(compare, photo):
    from segment_anything import SamAutomaticMaskGenerator

    from zspl.toyworld.sam import load_sam

    library = SamAutomaticMaskGenerator(load_sam(), **TINY)
    proposer = sam.SamProposer(load_sam(), sam.Settings(model="tiny", **TINY))
    pixels = np.array(photo)

    def reference():
        return np.stack([mask["segmentation"] for mask in library.generate(pixels)])

    def ours():
        return proposer.propose(photo).masks.numpy()

    compare(
        "generator, tiny SAM, 64 points",
        reference,
        ours,
        parity=_differing_pixels,
        bound=2.5,
    )


@pytest.mark.filterwarnings("default")
def bench_pipeline_tiny(compare, photo):
    from zspl.toyworld.sam import load_sam

    try:
        import transformers_sam

        pipeline = transformers_sam.pipeline()
    except ImportError as error:
        compare("transformers mask-generation, tiny SAM", str(error), None)
        return
    proposer = sam.SamProposer(load_sam(), sam.Settings(model="tiny", **TINY))
    knobs = {**TINY, "points_per_crop": TINY["points_per_side"], "points_per_batch": 64}
    del knobs["points_per_side"]

    def reference():
        return np.stack([np.asarray(mask) for mask in pipeline(photo, **knobs)["masks"]])

    def ours():
        return proposer.propose(photo).masks.numpy()

    compare(
        "transformers mask-generation, tiny SAM",
        reference,
        ours,
        parity=_differing_pixels,
        bound=2.5,
    )


def _differing_pixels(expected, found):
    if expected.shape != found.shape:
        return f"{len(expected)} and {len(found)} masks"
    return f"{(expected != found).mean():.1e} of pixels differ, {len(found)} masks"
