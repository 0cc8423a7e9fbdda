"""Correlations restricted to segments, against the last block written out token by token."""

import math

import pytest
import torch

from zspl.features import corrclip
from zspl.features.corrclip import patch_regions
from zspl.records import SegmentProposals

GRID, PATCH = (5, 3), 8
HEIGHT, WIDTH = 50, 33


def some_masks(seed=0):
    """Return a large segment, a smaller one that lies inside, and one that covers both in part."""
    masks = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 5:40, 4:30] = True
    masks[1, 12:28, 6:20] = True
    masks[2] = torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) > 0.4
    masks[2, :25] = False
    return masks


def regions_by_hand(masks):
    """Ask every pixel of CLIP's input for its smallest segment, and let the patch's pixels vote."""
    found = []
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            votes = [0] * (len(masks) + 1)
            for y in range(row * PATCH, (row + 1) * PATCH):
                for x in range(column * PATCH, (column + 1) * PATCH):
                    there = int((y + 0.5) * HEIGHT / (GRID[0] * PATCH))
                    across = int((x + 0.5) * WIDTH / (GRID[1] * PATCH))
                    owner = len(masks)
                    for k, mask in enumerate(masks):
                        smaller = owner == len(masks) or mask.sum() < masks[owner].sum()
                        if mask[there, across] and smaller:
                            owner = k
                    votes[owner] += 1
            found.append(votes.index(max(votes)))
    return torch.tensor(found)


def reference(clip, image, masks, temperature):
    """The tower by open_clip's own blocks, but for the last, which is written out."""
    visual = clip.visual
    *before, last = visual.transformer.resblocks
    tokens = visual._embeds(image[None])
    for block in before:
        tokens = block(tokens)
    x = last.ln_1(tokens[0])
    parts = (x @ last.attn.in_proj_weight.T + last.attn.in_proj_bias).chunk(3, dim=1)
    region = [None, *regions_by_hand(masks).tolist()]
    heads = []
    for q, k, v in zip(*(part.chunk(last.attn.num_heads, dim=1) for part in parts), strict=True):
        out = torch.zeros_like(v)
        for i in range(1, len(x)):
            seen = [j for j in range(1, len(x)) if region[j] == region[i]]
            weights = []
            for j in seen:
                of_queries = float(q[i] @ q[j] / (q[i].norm() * q[j].norm()))
                of_keys = float(k[i] @ k[j] / (k[i].norm() * k[j].norm()))
                weights.append(math.exp((of_queries + of_keys) / 2 / temperature))
            for j, weight in zip(seen, weights, strict=True):
                out[i] += weight / sum(weights) * v[j]
        heads.append(out)
    out = torch.cat(heads, dim=1) @ last.attn.out_proj.weight.T + last.attn.out_proj.bias
    return (visual.ln_post(out) @ visual.proj)[1:]


def proposals_of(masks):
    scores = torch.linspace(0.9, 0.8, len(masks))
    return SegmentProposals(masks=masks, predicted_iou=scores, stability_score=scores)


def test_a_patch_belongs_to_the_smallest_segment_that_most_of_it_lies_in():
    masks = some_masks()
    found = patch_regions(masks, GRID, PATCH)
    assert torch.equal(found, regions_by_hand(masks))
    assert set(found.tolist()) == {0, 1, 2, 3}


def test_of_two_equal_segments_the_first_one_wins_and_without_any_all_patches_are_one_region():
    twice = some_masks()[:1].repeat(2, 1, 1)
    assert set(patch_regions(twice, GRID, PATCH).tolist()) == {0, 2}
    assert set(patch_regions(twice[:0], GRID, PATCH).tolist()) == {0}


def test_a_photo_with_fewer_pixels_than_patches_still_has_regions():
    masks = torch.zeros(1, 2, 2, dtype=torch.bool)
    masks[0, 0, 0] = True
    expected = torch.ones(4, 4, dtype=torch.long)
    expected[:2, :2] = 0
    assert torch.equal(patch_regions(masks, (4, 4), PATCH).view(4, 4), expected)


@pytest.mark.parametrize("temperature", [0.05, 0.25, 2.0])
@torch.inference_mode()
def test_tokens_equal_the_last_block_written_out(sharp_clip, serve, temperature):
    model = sharp_clip(image_size=(40, 24))
    serve(model)
    encoder = corrclip.build(corrclip.Settings(image_size=32, temperature=temperature))
    images = torch.randn(2, 3, 40, 24, generator=torch.Generator().manual_seed(1))
    both = [some_masks(0), some_masks(1)[1:]]
    found = encoder.tokens(images, [proposals_of(masks) for masks in both])[:, 1:]
    for tokens, image, masks in zip(found, images, both, strict=True):
        expected = reference(model, image, masks, temperature)
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_last_block_carries_nothing_from_one_segment_into_another(
    sharp_clip, serve, monkeypatch
):
    from zspl.features import _vit

    serve(sharp_clip(image_size=(40, 24)))
    encoder = corrclip.build(corrclip.Settings(image_size=32))
    monkeypatch.setattr(_vit, "run_block", lambda _, tokens: tokens)
    masks = some_masks()
    regions = patch_regions(masks, GRID, PATCH)
    images = torch.randn(1, 3, 40, 24, generator=torch.Generator().manual_seed(1))
    changed = images.clone()
    inside = (regions == 1).view(GRID).repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
    changed[..., inside] += 1.0
    one, other = (encoder.tokens(i, [proposals_of(masks)])[0, 1:] for i in (images, changed))
    moved = (one - other).abs().amax(dim=1) > 1e-4
    assert torch.equal(moved, regions == 1)
