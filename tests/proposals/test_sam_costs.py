"""Gates on what the generator costs, in counts that are the same on every machine."""

import numpy as np
import pytest
import torch

from zspl.proposals import _sam_generator, _sam_masks
from zspl.proposals._sam_decoder import Decoded, Decoder
from zspl.proposals._sam_encoder import encode

GIGA = 1e9
PHOTO = (1200, 1800)


@pytest.fixture(scope="module")
def true_size(seeded_masks):
    """The true decoder on the true 64 x 64 image tokens."""
    return seeded_masks.small_sam()


def test_a_prompt_costs_half_of_the_librarys_products(true_size, count_costs):
    """Counted for one prompt of which all three masks are drawn down to the last row."""
    embedding, prompts = torch.randn(256, 64, 64), torch.randn(1, 2, 256)
    dense = true_size.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    position = true_size.prompt_encoder.get_dense_pe()
    with count_costs() as library:
        true_size.mask_decoder(
            image_embeddings=embedding[None],
            image_pe=position,
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=dense.expand(1, -1, 64, 64),
            multimask_output=True,
        )
    decoder = Decoder(true_size)
    scene = decoder.look_at(embedding)
    with count_costs() as ours:
        decoded = decoder.decode(scene, prompts)
    with count_costs() as drawing:
        decoder.draw(decoded, torch.arange(1), rows=64)
    assert library.flops == pytest.approx(3.62 * GIGA, rel=0.01)
    assert ours.flops <= 0.95 * GIGA
    assert ours.flops + drawing.flops <= 1.85 * GIGA


def test_what_prompts_share_is_computed_once_per_image(true_size, count_costs):
    decoder = Decoder(true_size)
    with count_costs() as shared:
        scene = decoder.look_at(torch.randn(256, 64, 64))
    with count_costs() as one:
        decoder.decode(scene, torch.randn(1, 2, 256))
    with count_costs() as two:
        decoder.decode(scene, torch.randn(2, 2, 256))
    assert two.flops == 2 * one.flops
    assert shared.flops <= 0.9 * GIGA


def test_a_prompt_whose_scores_all_fail_draws_no_mask(seeded_masks, count_costs):
    """And of the one that passes, a photo half as high as wide draws half of the rows."""
    sam = seeded_masks.small_sam(side=256)
    settings = _sam_generator.GeneratorSettings(points_per_side=3)
    photo = np.zeros((50, 100, 3), np.uint8)
    seeded = seeded_masks.SeededMasks(prompts=9)

    def flops(*passing):
        seeded.scores.fill_(0.5)
        for prompt in passing:
            seeded.scores[prompt, 1] = 0.99
        generator = _sam_generator.Generator(sam, settings)
        seeded_masks.hook_ours(generator, seeded)
        with count_costs() as costs:
            generator.generate([photo])
        return costs.flops

    decoder = Decoder(sam)
    decoded = decoder.decode(decoder.look_at(torch.randn(256, 16, 16)), torch.randn(1, 2, 256))
    with count_costs() as drawing:
        decoder.draw(decoded, torch.arange(1), rows=9)
    one = flops(4) - flops()
    assert drawing.flops <= one <= drawing.flops * 1.1  # resampling is the rest
    assert flops(0, 8) - flops() < 2.2 * drawing.flops


def test_the_encoder_never_holds_all_attention_maps(true_size, count_costs):
    """Two heads of 4096 x 4096 here; the library holds the maps several times over."""
    image = torch.randn(1, 3, 1024, 1024)
    with count_costs() as library:
        true_size.image_encoder(image)
    with count_costs() as ours:
        encode(true_size.image_encoder, image)
    assert library.largest == 2 * 4096 * 4096 * 4
    assert ours.largest <= library.largest / 8
    assert ours.flops <= library.flops


class Together(_sam_masks.Canvas):
    """Draws masks on a CPU as on a GPU."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self._one_by_one = False


def counted_apart(monkeypatch, count_costs, functions):
    """Have the ops of these (owner, name) counted; returns the list that gets their numbers."""
    apart = []

    def wrapped(function):
        def call(*given, **named):
            with count_costs() as costs:
                result = function(*given, **named)
            apart.append(costs.ops)
            return result

        return call

    for owner, name in functions:
        monkeypatch.setattr(owner, name, wrapped(getattr(owner, name)))
    return apart


def networks_left_out(monkeypatch, decoder):
    """Replace the networks by empty results, which the seeded masks then fill."""
    nothing = torch.zeros(1)

    def decode(scene, prompts):
        return Decoded(
            scores=torch.zeros(len(prompts), 3),
            image=nothing.expand(len(prompts), 1, 1),
            strokes=nothing.expand(len(prompts), 3, 1),
        )

    def draw(decoded, prompts, *, rows):
        return nothing.expand(len(prompts), 3, rows * decoder.scale, 4 * decoder.grid[1])

    monkeypatch.setattr(decoder, "decode", decode)
    monkeypatch.setattr(decoder, "draw", draw)


def test_1024_points_take_few_ops_outside_the_networks(seeded_masks, count_costs, monkeypatch):
    """As on a GPU: 64 at a time, a third of the scores passing. The library takes more for 64."""
    from segment_anything import SamAutomaticMaskGenerator

    photo = np.zeros((96, 128, 3), np.uint8)
    monkeypatch.setattr(_sam_generator, "Canvas", Together)
    monkeypatch.setattr(_sam_masks, "_BATCH_BYTES", 400 * photo[..., 0].size * 4)
    sam, other = (seeded_masks.small_sam(side=128, mlp=64) for _ in range(2))
    generator = _sam_generator.Generator(sam, _sam_generator.GeneratorSettings())
    generator._prompts_at_once = 64
    decoder = generator.decoder
    networks_left_out(monkeypatch, decoder)
    seeded_masks.hook_ours(generator, seeded_masks.SeededMasks())
    parts = [(decoder, "look_at"), (decoder, "decode"), (decoder, "draw")]
    parts.append((sam.prompt_encoder, "forward"))
    networks = counted_apart(monkeypatch, count_costs, [*parts, (_sam_generator, "encode")])
    with count_costs() as ours:
        (found,) = generator.generate([photo])
    library = SamAutomaticMaskGenerator(
        seeded_masks.hook_official(other, seeded_masks.SeededMasks(prompts=64)), points_per_side=8
    )
    parts = [(other.image_encoder, "forward"), (other.mask_decoder, "forward")]
    parts.append((other.prompt_encoder, "forward"))
    modules = counted_apart(monkeypatch, count_costs, parts)
    with count_costs() as theirs:
        library.generate(photo)
    assert len(found.outlines) > 100
    assert ours.ops - sum(networks) <= 300
    assert theirs.ops - sum(modules) > ours.ops - sum(networks)


def library_post_processing(sam, count):
    """Largest steps from logits to masks of a photo, on tensors without values."""
    from segment_anything.utils.amg import calculate_stability_score

    low = torch.zeros(count, 3, 256, 256, device="meta")
    logits = sam.postprocess_masks(low, (683, 1024), PHOTO).flatten(0, 1)
    calculate_stability_score(logits, 0.0, 1.0)
    return logits > 0


@pytest.mark.parametrize("together", [False, True])
def test_no_tensor_is_as_large_as_all_masks_of_a_photo(together, true_size, count_costs):
    """64 points of a photo of 1800 x 1200: at most an eighth of the library's largest tensor."""
    with count_costs() as library:
        library_post_processing(true_size, 64)
    canvas = _sam_masks.Canvas(
        (256, 256), side=1024, seen=(683, 1024), size=PHOTO, device=torch.device("cpu")
    )
    canvas._one_by_one = not together
    low = torch.randn(8, 1, 1, generator=torch.Generator().manual_seed(0)).repeat(1, 256, 256)
    low += torch.linspace(-3, 3, 256)
    cutoffs = _sam_masks.Cutoffs(mask=0.0, offset=1.0, least=0.0)
    with count_costs() as ours:
        canvas.draw(low, cutoffs)
    assert library.largest == 192 * 1200 * 1800 * 4
    drawn_at_once = min(len(low), canvas.at_once)
    assert ours.largest * canvas.at_once / drawn_at_once <= library.largest / 8
