"""The tiny SAM: its file fits its classes and its masks fit the objects."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from zspl.errors import WeightsError
from zspl.toyworld import scene
from zspl.toyworld.pretrain_sam import Recipe, start, train
from zspl.toyworld.sam import GENERATOR_SETTINGS, WEIGHTS, build, load_sam, save_sam
from zspl.toyworld.sam_corpus import open_bank, place_clicks
from zspl.toyworld.sam_losses import decode, mask_loss
from zspl.toyworld.sam_probe import best_ious, paint_majority

generators = pytest.importorskip("segment_anything", reason="needs the [sam] extra")
TWO_OBJECTS = 90_002


@pytest.fixture(scope="module")
def sam() -> torch.nn.Module:
    return load_sam()


def test_the_shipped_file_holds_exactly_the_state_dict_of_the_stock_classes() -> None:
    stored, wanted = load_file(WEIGHTS), build().state_dict()
    assert {k: v.shape for k, v in stored.items()} == {k: v.shape for k, v in wanted.items()}
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert WEIGHTS.stat().st_size <= 3_500_000


def test_load_sam_gives_a_frozen_float32_model_in_eval_mode(
    sam: torch.nn.Module,
) -> None:
    assert not sam.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in sam.parameters())


def test_the_generator_finds_both_objects_and_repeats_itself(
    sam: torch.nn.Module,
) -> None:
    picture = scene.render(TWO_OBJECTS, spec=replace(scene.BENCHMARK, objects=(2, 2)))
    generator = generators.SamAutomaticMaskGenerator(sam, **GENERATOR_SETTINGS)
    first, second = (generator.generate(picture.image) for _ in range(2))
    ious = best_ious(np.array([r["segmentation"] for r in first]), picture.instances)
    assert len(ious) == 2
    assert ious.min() >= 0.5
    assert all(
        np.array_equal(a["segmentation"], b["segmentation"])
        for a, b in zip(first, second, strict=True)
    )


def test_save_and_load_keep_the_weights_to_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sam = build()
    save_sam(sam, tmp_path / "new" / "sam.safetensors")
    loaded = load_sam(tmp_path / "new" / "sam.safetensors").state_dict()
    for name, value in sam.state_dict().items():
        assert torch.equal(loaded[name], value.half().float())


def test_load_sam_says_when_the_file_is_missing_or_another_model(
    tmp_path: Path,
) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors: expected .* found no file"):
        load_sam(tmp_path / "nowhere.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    with pytest.raises(WeightsError, match="got others"):
        load_sam(other)


def test_a_damaged_sam_file_asks_to_install_again(tmp_path: Path) -> None:
    damaged = tmp_path / "sam.safetensors"
    damaged.write_bytes(WEIGHTS.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="reinstall the package") as got:
        load_sam(damaged)
    assert "\n" not in str(got.value)


def test_decode_draws_the_same_masks_as_the_stock_decoder(sam: torch.nn.Module) -> None:
    torch.manual_seed(0)
    embedding = torch.randn(2, 128, 12, 12)
    clicks = torch.rand(2, 3, 2) * 95
    masks, quality = decode(sam, embedding, clicks)
    for image in range(2):
        labels = torch.ones(3, 1, dtype=torch.int64)
        sparse, dense = sam.prompt_encoder((clicks[image][:, None], labels), None, None)
        expected = sam.mask_decoder.predict_masks(
            embedding[image][None], sam.prompt_encoder.get_dense_pe(), sparse, dense
        )
        rows = slice(3 * image, 3 * image + 3)
        torch.testing.assert_close(masks[rows], expected[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(quality[rows], expected[1], rtol=1e-4, atol=1e-4)


def test_mask_loss_is_near_zero_for_certain_masks_that_know_they_are_right() -> None:
    target = torch.zeros(1, 8, 8)
    target[:, 2:5, 2:5] = 1.0
    logits = (40 * target - 20)[:, None].expand(1, 4, 8, 8)
    loss, iou = mask_loss(logits, torch.ones(1, 4), target, weight=torch.ones(1, 8, 8))
    assert float(loss) < 1e-3
    assert float(iou) == 1.0


def test_a_resumed_pre_training_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    bank = open_bank(tmp_path / "bank", count=3)
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    state = tmp_path / "state.pt"
    recipe = Recipe(steps=4, pictures=1, clicks=2, warmup=1)
    train(start(recipe), recipe, bank=bank, out=whole, checkpoint=tmp_path / "unused.pt")

    killed = start(recipe)
    train(killed, replace(recipe, steps=2), bank=bank, out=broken, checkpoint=state)
    resumed = start(recipe)
    resumed.restore(torch.load(state, weights_only=True))
    train(resumed, recipe, bank=bank, out=broken, checkpoint=state)
    assert resumed.step == 4
    assert all(
        torch.equal(value, load_file(broken)[name]) for name, value in load_file(whole).items()
    )


def test_two_thirds_of_the_clicks_and_their_share_of_the_rest_fall_on_objects() -> None:
    regions = np.zeros((32, 32), dtype=np.uint8)
    regions[:2, :2], regions[8:24, 8:24] = 1, 2
    points = place_clicks(np.random.default_rng(0), regions, count=30_000).astype(int)
    share = np.bincount(regions[points[:, 1], points[:, 0]], minlength=3) / 30_000
    expected = [(1 - 260 / 1024) / 3, 1 / 3 + 4 / 1024 / 3, 1 / 3 + 256 / 1024 / 3]
    np.testing.assert_allclose(share, expected, atol=0.01)


def test_paint_majority_lets_small_masks_cover_large_ones() -> None:
    label = np.zeros((4, 4), dtype=np.uint8)
    label[:2, :2] = 3
    small, whole = label == 3, np.ones((4, 4), dtype=bool)
    np.testing.assert_array_equal(paint_majority(np.stack((small, whole)), label), label)
