"""Each rewritten part of SAM against segment_anything's module with random weights."""

import numpy as np
import pytest
import torch
from torch import nn

from zspl.proposals import _sam_encoder
from zspl.proposals._sam_decoder import Decoder
from zspl.proposals._sam_masks import Canvas, Cutoffs, Outline, boxes_of

CPU = torch.device("cpu")


def relative_difference(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def random_block(window, size, rel_pos=True):
    from segment_anything.modeling.image_encoder import Block

    torch.manual_seed(1)
    block = Block(
        48, 3, norm_layer=nn.LayerNorm, use_rel_pos=rel_pos, window_size=window, input_size=size
    )
    with torch.no_grad():
        for value in block.parameters():
            value.add_(torch.randn_like(value), alpha=0.2)
    return block.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize(
    ("window", "size"),
    [(0, (9, 9)), (0, (6, 11)), (4, (8, 8)), (4, (9, 6)), (5, (3, 13))],
    ids=["global", "global, not square", "windows", "padded windows", "image below a window"],
)
@pytest.mark.parametrize("rel_pos", [True, False])
def test_an_encoder_block_gives_what_the_library_gives(window, size, rel_pos):
    block = random_block(window, size, rel_pos)
    tokens = torch.randn(2, *size, 48)
    found = _sam_encoder.run_block(block, tokens.clone())
    assert relative_difference(found, block(tokens)) < 1e-5


@pytest.mark.parametrize("window", [0, 4])
def test_attention_in_small_parts_gives_the_same_block(window, monkeypatch):
    block = random_block(window, (9, 7))
    tokens = torch.randn(2, 9, 7, 48)
    expected = block(tokens)
    for size in (1, 2000, 20_000):
        monkeypatch.setitem(_sam_encoder._BIAS_BYTES, "cpu", size)
        assert relative_difference(_sam_encoder.run_block(block, tokens), expected) < 1e-5


def test_a_block_leaves_its_input_as_it_was():
    tokens = torch.randn(1, 5, 5, 48)
    before = tokens.clone()
    _sam_encoder.run_block(random_block(4, (5, 5)), tokens)
    assert torch.equal(tokens, before)


def test_the_encoder_gives_what_the_library_gives(seeded_masks):
    encoder = seeded_masks.small_sam(side=256).image_encoder
    images = torch.randn(2, 3, 256, 256)
    found = _sam_encoder.encode(encoder, images)
    assert relative_difference(found, encoder(images)) < 1e-5


def decoded_by_the_library(sam, embedding, prompts):
    return sam.mask_decoder(
        image_embeddings=embedding[None],
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=prompts,
        dense_prompt_embeddings=sam.prompt_encoder(
            (torch.zeros(len(prompts), 1, 2), torch.ones(len(prompts), 1)), None, None
        )[1],
        multimask_output=True,
    )


@pytest.mark.parametrize("count", [1, 3])
def test_the_decoder_gives_the_logits_and_scores_of_the_library(count, seeded_masks):
    sam = seeded_masks.small_sam(side=512)
    embedding, prompts = torch.randn(256, 32, 32), torch.randn(count, 2, 256)
    logits, scores = decoded_by_the_library(sam, embedding, prompts)
    decoder = Decoder(sam)
    decoded = decoder.decode(decoder.look_at(embedding), prompts)
    drawn = decoder.draw(decoded, torch.arange(count), rows=32)
    assert relative_difference(decoded.scores, scores) < 1e-5
    assert relative_difference(drawn, logits) < 1e-5


def test_drawing_some_prompts_and_rows_gives_those_of_the_whole(seeded_masks):
    sam = seeded_masks.small_sam(side=512)
    decoder = Decoder(sam)
    decoded = decoder.decode(decoder.look_at(torch.randn(256, 32, 32)), torch.randn(4, 2, 256))
    whole = decoder.draw(decoded, torch.arange(4), rows=32)
    for rows in (1, 17, 31):
        some = decoder.draw(decoded, torch.tensor([1, 3]), rows=rows)
        assert some.shape == (2, 3, rows * 4, 128)
        assert torch.allclose(some, whole[[1, 3], :, : rows * 4], atol=1e-5)


def test_a_third_layer_of_the_decoder_is_folded_too(seeded_masks):
    from segment_anything.modeling import MaskDecoder, TwoWayTransformer

    sam = seeded_masks.small_sam(side=128)
    transformer = TwoWayTransformer(depth=3, embedding_dim=256, num_heads=8, mlp_dim=64)
    sam.mask_decoder = MaskDecoder(transformer_dim=256, transformer=transformer)
    sam.eval().requires_grad_(requires_grad=False)
    embedding, prompts = torch.randn(256, 8, 8), torch.randn(2, 2, 256)
    logits, scores = decoded_by_the_library(sam, embedding, prompts)
    decoder = Decoder(sam)
    decoded = decoder.decode(decoder.look_at(embedding), prompts)
    assert relative_difference(decoded.scores, scores) < 1e-5
    assert relative_difference(decoder.draw(decoded, torch.arange(2), rows=8), logits) < 1e-5


def seen(size, side):
    """How large an image of this height and width is in SAM's square."""
    from segment_anything.utils.transforms import ResizeLongestSide

    return ResizeLongestSide.get_preprocess_shape(*size, side)


def blobs(count, side, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 7, 7, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[:, 0]
    return smooth * 8 - torch.rand(count, 1, 1, generator=generator) * 12


SIZES = [(375, 500), (64, 48), (600, 40), (33, 300), (5, 64)]
CUTOFFS = Cutoffs(mask=0.0, offset=1.0, least=0.0)


def canvas_of(size, together):
    canvas = Canvas((64, 64), side=256, seen=seen(size, 256), size=size, device=CPU)
    canvas._one_by_one = not together
    return canvas


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("together", [False, True])
def test_masks_stability_and_boxes_are_those_of_the_full_size_logits(size, together, seeded_masks):
    from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score

    low = torch.cat([blobs(6, 64), torch.full((1, 64, 64), -9.0), torch.full((1, 64, 64), 9.0)])
    sam = seeded_masks.small_sam(side=256)
    full = sam.postprocess_masks(low[None], seen(size, 256), size)[0]
    drawn = canvas_of(size, together).draw(low, CUTOFFS)
    masks = np.zeros((len(low), *size), bool)
    for mask, outline in zip(masks, drawn.outlines, strict=True):
        outline.paint(mask)
    differing = int((torch.from_numpy(masks) != (full > 0)).sum())
    assert differing <= 1e-5 * masks.size
    stability = calculate_stability_score(full, 0.0, 1.0)
    assert torch.allclose(drawn.stability, stability, atol=1e-4, equal_nan=True)
    assert torch.equal(drawn.boxes, boxes_of(torch.from_numpy(masks)))
    assert torch.equal(drawn.boxes, batched_mask_to_box(torch.from_numpy(masks)))


@pytest.mark.parametrize("tile", [(1, 1), (7, 30)])
def test_the_tiles_that_a_mask_is_made_of_do_not_show(tile, monkeypatch):
    from zspl.proposals import _sam_masks

    low = blobs(3, 64)
    expected = canvas_of((60, 80), together=False).draw(low, CUTOFFS)
    monkeypatch.setattr(_sam_masks, "_TILE", tile)
    found = canvas_of((60, 80), together=False).draw(low, CUTOFFS)
    assert torch.equal(found.stability, expected.stability)
    assert torch.equal(found.boxes, expected.boxes)


@pytest.mark.parametrize("threshold", [0.7, 0.85, 0.95])
def test_exactly_the_masks_below_the_threshold_may_be_left_out(threshold):
    """On smooth, noisy and rough logits; small logits tell too little of a rough mask's stability.

    Of logits drawn between 0.7 and 3 a share of 0.87 lies above 1, of their interpolation 0.98.
    """
    random = torch.Generator().manual_seed(3)
    noise = torch.randn(60, 64, 64, generator=random)
    low = torch.cat([blobs(60, 64, seed=1), blobs(60, 64, seed=2) + noise])
    low *= torch.linspace(0.3, 4, len(low))[:, None, None]
    low = torch.cat([low, 0.7 + 2.3 * torch.rand(4, 64, 64, generator=random)])
    canvas = canvas_of((150, 200), together=False)
    every = canvas.draw(low, CUTOFFS)
    some = canvas.draw(low, Cutoffs(mask=0.0, offset=1.0, least=threshold))
    stable = (every.stability >= threshold).nonzero().flatten()
    assert some.index.tolist() == stable.tolist()
    assert set(range(120, 124)) <= set(some.index.tolist())
    assert len(some.index) < len(low)
    assert torch.equal(some.stability, every.stability[some.index])


def test_every_pixel_of_an_axis_is_made_of_its_taps_alone():
    from zspl.proposals._sam_masks import _Axis

    for side_seen, size in [(256, 500), (256, 30), (171, 171), (3, 2), (1, 1), (199, 613)]:
        axis = _Axis(64, side=256, seen=side_seen, size=size, device=CPU)
        first, last = axis._first, axis._last
        assert (np.diff(first) >= 0).all()
        assert (np.diff(last) >= 0).all()
        assert torch.allclose(axis.matrix.sum(1), torch.ones(size))
        for pixel in range(size):
            outside = axis.matrix[pixel].clone()
            outside[axis.taps(slice(pixel, pixel + 1))] = 0
            assert not outside.any()


def test_an_outline_holds_a_mask_in_an_eighth_of_its_bytes():
    mask = np.random.default_rng(0).random((37, 61)) > 0.5
    outline = Outline.of(mask, top=3, left=5).moved(down=1, right=2)
    image = np.zeros((50, 80), bool)
    outline.paint(image)
    assert np.array_equal(image[4:41, 7:68], mask)
    assert image.sum() == mask.sum()
    assert outline.bits.nbytes == -(-37 * 61 // 8)
