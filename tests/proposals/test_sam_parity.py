"""The fast generator against segment_anything's own: the same masks from the same weights."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from zspl.proposals import sam

SUITABLE = {"points_per_side": 8, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.7}
KNOBS = {
    "of the demo": {},
    "looser": {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.3, "box_nms_thresh": 0.9},
    "tighter": {"pred_iou_thresh": 0.8, "stability_score_thresh": 0.85, "box_nms_thresh": 0.3},
    "another offset": {"stability_score_offset": 0.5, "stability_score_thresh": 0.85},
    "no filter": {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 3},
    "uneven batches": {"points_per_batch": 7, "points_per_side": 6},
    "crops": {"crop_n_layers": 1, "points_per_side": 4, "stability_score_thresh": 0.5},
}


@pytest.fixture(scope="module")
def tiny():
    from zspl.toyworld.sam import load_sam

    return load_sam()


def official(model, knobs, image):
    from segment_anything import SamAutomaticMaskGenerator

    found = SamAutomaticMaskGenerator(model, **knobs).generate(np.array(image))
    return sorted(found, key=lambda mask: -mask["predicted_iou"])


def proposer(model, knobs, max_side=None):
    return sam.SamProposer(model, sam.Settings(model="tiny", max_side=max_side, **knobs))


def painted(masks, shape):
    """A label map: the number of the best mask at each pixel."""
    label = np.zeros(shape, np.int64)
    for k in reversed(range(len(masks))):
        label[masks[k]] = k + 1
    return label


def assert_the_same(found, expected):
    """Count, order, scores, masks; returns how many pixels of the label map differ, and all."""
    assert len(found.masks) == len(expected)
    masks = found.masks.numpy()
    for k, mask in enumerate(expected):
        truth = mask["segmentation"]
        assert found.predicted_iou[k].item() == pytest.approx(mask["predicted_iou"], abs=1e-4)
        assert found.stability_score[k].item() == pytest.approx(
            mask["stability_score"], abs=1e-4, nan_ok=True
        )
        union = (truth | masks[k]).sum()
        assert (truth & masks[k]).sum() >= 0.999 * union
    shape = masks.shape[1:]
    ours = painted(masks, shape)
    theirs = painted([mask["segmentation"] for mask in expected], shape)
    return int((ours != theirs).sum()), ours.size


@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS.keys())
def test_the_masks_are_those_of_the_library_on_toy_scenes(knobs, toy_scenes, tiny):
    knobs = {**SUITABLE, **knobs}
    differing = pixels = count = 0
    for scene in toy_scenes:
        expected = official(tiny, knobs, scene)
        counted = assert_the_same(proposer(tiny, knobs).propose(scene), expected)
        differing, pixels = differing + counted[0], pixels + counted[1]
        count += len(expected)
    assert count > 3
    assert differing <= 1e-5 * pixels


@pytest.mark.parametrize("name", ["of the demo", "looser", "crops"])
def test_the_masks_are_those_of_the_library_on_real_photos(name, real_photos, tiny):
    knobs = {**SUITABLE, **KNOBS[name], "points_per_side": 4}
    differing = pixels = count = 0
    for photo in real_photos:
        expected = official(tiny, knobs, photo)
        counted = assert_the_same(proposer(tiny, knobs).propose(photo), expected)
        differing, pixels = differing + counted[0], pixels + counted[1]
        count += len(expected)
    assert count > 3
    assert differing <= 1e-5 * pixels


def test_boxes_are_those_of_the_library(toy_scenes, tiny):
    from zspl.proposals._sam_generator import Generator, GeneratorSettings

    knobs = {**SUITABLE, **KNOBS["crops"]}
    (found,) = Generator(tiny, GeneratorSettings(**knobs)).generate([np.array(toy_scenes[0])])
    expected = [mask["bbox"] for mask in official(tiny, knobs, toy_scenes[0])]
    left, top, right, bottom = found.boxes.unbind(1)
    assert torch.stack([left, top, right - left, bottom - top], 1).tolist() == expected


def labelled_regions(working, connectivity):
    """What OpenCV's connectedComponentsWithStats gives of what the library reads."""
    from scipy import ndimage

    assert connectivity == 8
    regions, count = ndimage.label(working, np.ones((3, 3)))
    stats = np.zeros((count + 1, 5), np.int64)
    stats[:, -1] = np.bincount(regions.ravel(), minlength=count + 1)
    return count + 1, regions, stats, None


@pytest.mark.parametrize("area", [20, 60, 2000])
@pytest.mark.parametrize("layers", [0, 1])
def test_small_regions_are_mended_as_in_the_library(area, layers, toy_scenes, tiny, monkeypatch):
    opencv = SimpleNamespace(connectedComponentsWithStats=labelled_regions)
    monkeypatch.setitem(sys.modules, "cv2", opencv)
    knobs = {**SUITABLE, "stability_score_thresh": 0.4, "min_mask_region_area": area}
    knobs |= {"crop_n_layers": layers, "points_per_side": 6}
    expected = official(tiny, knobs, toy_scenes[1])
    assert len(expected) > 2
    differing, _ = assert_the_same(proposer(tiny, knobs).propose(toy_scenes[1]), expected)
    assert differing == 0


def test_mending_needs_no_opencv(toy_scenes, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    knobs = {**SUITABLE, "min_mask_region_area": 20}
    assert len(proposer(tiny, knobs).propose(toy_scenes[0]).masks) > 0


def test_true_decoder_sizes_and_seeded_masks_give_the_masks_of_the_library(seeded_masks):
    """At 35 % of the scores passing; the photo is taller than wide and larger than SAM's view."""
    knobs = {"points_per_side": 4}
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 500, 3), np.uint8))
    model, other = (seeded_masks.small_sam(side=512) for _ in range(2))
    ours = proposer(model, knobs)
    seeded_masks.hook_ours(ours.generator, seeded_masks.SeededMasks(prompts=16))
    seeded_masks.hook_official(other, seeded_masks.SeededMasks(prompts=16))
    expected = official(other, knobs, photo)
    assert len(expected) > 3
    differing, pixels = assert_the_same(ours.propose(photo), expected)
    assert differing <= 1e-5 * pixels


def test_random_weights_with_true_decoder_sizes_give_the_masks_of_the_library(seeded_masks):
    knobs = {"points_per_side": 2, "pred_iou_thresh": -9.0, "box_nms_thresh": 1.0}
    knobs["stability_score_thresh"] = 0.0
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8))
    model = seeded_masks.small_sam(side=256)
    expected = official(model, knobs, photo)
    assert len(expected) > 1
    assert_the_same(proposer(model, knobs).propose(photo), expected)


def test_drawing_masks_together_as_on_a_gpu_gives_the_same(toy_scenes, tiny, monkeypatch):
    from zspl.proposals import _sam_generator, _sam_masks

    knobs = {**SUITABLE, "crop_n_layers": 1, "min_mask_region_area": 20}
    expected = [proposer(tiny, knobs).propose(scene) for scene in toy_scenes]
    together = proposer(tiny, knobs)
    together.generator._images_at_once = 4
    together.generator._prompts_at_once = 64

    class Together(_sam_masks.Canvas):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            self._one_by_one = False

    monkeypatch.setattr(_sam_generator, "Canvas", Together)
    monkeypatch.setattr(_sam_masks, "_BATCH_BYTES", 5 * 4 * toy_scenes[0].width ** 2)
    for found, one in zip(together.propose_batch(toy_scenes), expected, strict=True):
        assert found.masks.shape == one.masks.shape
        assert (found.masks != one.masks).float().mean() < 1e-5
        assert torch.allclose(found.stability_score, one.stability_score, atol=1e-4)


def test_a_batch_gives_what_its_images_give_alone_to_the_bit(toy_scenes, tiny):
    images = [toy_scenes[0], toy_scenes[1].resize((50, 80)), toy_scenes[1]]
    ours = proposer(tiny, SUITABLE)
    for found, image in zip(ours.propose_batch(images), images, strict=True):
        alone = ours.propose(image)
        assert torch.equal(found.masks, alone.masks)
        assert torch.equal(found.predicted_iou, alone.predicted_iou)
    assert ours.propose_batch([]) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (300, 2)])
def test_an_image_of_hardly_any_pixels_is_cut_too(size, tiny):
    knobs = {**SUITABLE, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    for layers in (0, 1):
        ours = proposer(tiny, {**knobs, "crop_n_layers": layers, "points_per_side": 2})
        found = ours.propose(Image.new("RGB", size, (200, 30, 30)))
        assert found.masks.shape[1:] == (size[1], size[0])


def test_a_score_at_the_threshold_does_not_pass_and_a_stability_at_it_does(tiny, toy_scenes):
    """The library drops a score equal to its threshold and keeps a stability equal to its own."""
    knobs = {**SUITABLE, "box_nms_thresh": 1.0}
    found = proposer(tiny, knobs).propose(toy_scenes[0])
    lowest = float(found.predicted_iou.min())
    fewer = proposer(tiny, {**knobs, "pred_iou_thresh": lowest}).propose(toy_scenes[0])
    assert len(fewer.masks) == len(found.masks) - 1
    stable = float(found.stability_score.min())
    as_many = proposer(tiny, {**knobs, "stability_score_thresh": stable}).propose(toy_scenes[0])
    assert len(as_many.masks) == len(found.masks)


def test_a_layer_of_crops_without_points_is_refused():
    with pytest.raises(ValidationError, match="leaves no point in layer 2"):
        sam.Settings(points_per_side=3, crop_n_layers=2, crop_n_points_downscale_factor=2)


def test_half_precision_is_refused_where_it_would_be_emulated(monkeypatch, tiny):
    from zspl.errors import SettingsError

    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    with pytest.raises(SettingsError, match="float16"):
        sam.SamProposer(tiny, sam.Settings(model="tiny", dtype="float16"))


def test_in_bfloat16_the_masks_stay_nearly_the_same(toy_scenes):
    """Computed by emulation here; scores and cutoffs are decided in float32 all the same."""
    from zspl.proposals._sam_generator import Generator, GeneratorSettings
    from zspl.toyworld.sam import load_sam

    settings = GeneratorSettings(**{**SUITABLE, "points_per_side": 4})
    whole = Generator(load_sam(), settings)
    half = Generator(load_sam(), settings, torch.bfloat16)
    pixels = np.array(toy_scenes[0])
    (expected,), (found,) = whole.generate([pixels]), half.generate([pixels])
    assert found.scores.dtype == torch.float32
    assert abs(len(found.outlines) - len(expected.outlines)) <= 2
    assert found.scores[0].item() == pytest.approx(expected.scores[0].item(), abs=0.03)
