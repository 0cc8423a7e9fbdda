"""SAM through its own mask generator, and superpixels."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from zspl.errors import WeightsError
from zspl.proposals import sam, superpixels

LOOSE = {"pred_iou_thresh": -9.0, "stability_score_thresh": 0.0, "points_per_side": 4}


def photo(width=60, height=40, seed=0):
    blocks = np.random.default_rng(seed).integers(0, 255, (height // 10, width // 10, 3))
    return Image.fromarray(np.kron(blocks, np.ones((10, 10, 1))).astype(np.uint8))


def untrained_sam():
    from zspl.toyworld.sam import build

    torch.manual_seed(0)
    return build().eval()


def test_sam_gives_the_masks_of_the_library_best_first():
    from segment_anything import SamAutomaticMaskGenerator

    knobs = {**LOOSE, "box_nms_thresh": 1.0}
    settings = sam.Settings(model="tiny", **knobs)
    found = sam.SamProposer(untrained_sam(), settings).propose(photo())
    expected = SamAutomaticMaskGenerator(untrained_sam(), **knobs).generate(np.array(photo()))
    assert len(expected) > 1
    assert found.masks.shape == (len(expected), 40, 60)
    for k, mask in enumerate(expected):
        assert np.array_equal(found.masks[k].numpy(), mask["segmentation"])
        assert found.predicted_iou[k].item() == pytest.approx(mask["predicted_iou"], abs=1e-6)
        assert found.stability_score[k].item() == pytest.approx(mask["stability_score"])


def test_the_defaults_are_those_of_the_library():
    import inspect

    from segment_anything import SamAutomaticMaskGenerator

    signature = inspect.signature(SamAutomaticMaskGenerator).parameters
    for name, value in sam.Settings().knobs().items():
        assert signature[name].default == value
    assert set(signature) - set(sam.Settings().knobs()) == {"model", "point_grids", "output_mode"}


def test_an_image_where_nothing_passes_has_no_segments():
    settings = sam.Settings(model="tiny", points_per_side=2, pred_iou_thresh=99.0)
    found = sam.SamProposer(untrained_sam(), settings).propose(photo())
    assert found.masks.shape == (0, 40, 60)


def test_masks_of_a_shrunk_image_have_its_own_size():
    settings = sam.Settings(model="tiny", max_side=30, **LOOSE)
    found = sam.SamProposer(untrained_sam(), settings).propose(photo())
    assert found.masks.shape[1:] == (40, 60)


def test_several_crops_are_still_sorted_by_predicted_iou():
    settings = sam.Settings(
        model="tiny", crop_n_layers=1, crop_nms_thresh=1.0, box_nms_thresh=1.0, **LOOSE
    )
    found = sam.SamProposer(untrained_sam(), settings).propose(photo())
    assert len(found.masks) > 1
    assert (found.predicted_iou.diff() <= 0).all()


def test_a_checkpoint_with_a_wrong_checksum_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"half a download")
    with pytest.raises(WeightsError, match=r"sam_vit_b_01ec64.pth: sha256 is .*, expected ec2df6"):
        sam.build(sam.Settings(model="vit_b"))


def test_a_checkpoint_that_is_no_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    (tmp_path / "own.pth").write_bytes(b"not a pickle")
    digest = hashlib.sha256(b"not a pickle").hexdigest()
    with pytest.raises(WeightsError, match="no readable checkpoint"):
        sam.build(sam.Settings(model="vit_b", checkpoint="own.pth", sha256=digest))
    with pytest.raises(WeightsError, match=r"gone\.pth: no such checkpoint"):
        sam.build(sam.Settings(model="vit_b", checkpoint="gone.pth"))


def test_a_pickle_with_code_is_not_executed(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    torch.save({"x": Trap()}, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match="no readable checkpoint"):
        sam.build(sam.Settings(model="vit_b", checkpoint="own.pth"))
    assert not (tmp_path / "trapped").exists()


def test_a_checksum_without_its_file_is_refused():
    with pytest.raises(ValidationError, match="sha256 is of"):
        sam.Settings(sha256="0" * 64)


@pytest.mark.parametrize("algorithm", ["slic", "felzenszwalb"])
def test_superpixels_cover_the_image_without_overlap(algorithm):
    settings = superpixels.Settings(algorithm=algorithm, segments=20)
    found = superpixels.build(settings).propose(photo())
    assert len(found.masks) > 3
    assert (found.masks.sum(dim=0) == 1).all()
    assert found.masks.shape[1:] == (40, 60)
