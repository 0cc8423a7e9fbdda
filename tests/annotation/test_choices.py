"""What a user asks for becomes complete settings, checked before a model is loaded."""

import pytest
import torch

from zspl.annotation import choices
from zspl.annotation.choices import Asked, choose
from zspl.errors import SettingsError


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")


def settings(chosen, part):
    return chosen.parts[part]["settings"]


def test_without_a_gpu_the_default_is_mobile_sam_and_clip_b_16_in_float32():
    chosen = choose(Asked(classes="cat, dog"))

    assert settings(chosen, "proposals")["model"] == "vit_t"
    assert settings(chosen, "features")["model"] == "ViT-B-16-quickgelu"
    assert settings(chosen, "features")["pretrained"] == "openai"
    assert settings(chosen, "features")["dtype"] == "float32"
    assert chosen.models() == "sam (MobileSAM) + gem (ViT-B-16-quickgelu openai)"
    assert chosen.threshold == 0.85
    assert not chosen.tiny


def test_with_a_gpu_the_default_is_the_largest_sam(monkeypatch):
    monkeypatch.setattr(choices.devices, "chosen", lambda: torch.device("cuda"))
    monkeypatch.setattr(choices.devices, "dtype", lambda _: torch.bfloat16)

    chosen = choose(Asked(classes="cat, dog"))

    assert settings(chosen, "proposals")["model"] == "vit_h"
    assert settings(chosen, "features")["dtype"] == "bfloat16"


def test_every_setting_is_recorded_and_what_was_set_wins():
    asked = Asked(
        classes="cat, dog",
        sam="tiny",
        clip="tiny",
        changes={"proposals.points_per_side": 4, "features.image_size": 96},
    )

    made_with = choose(asked).as_json()

    assert made_with["proposals"]["settings"]["points_per_side"] == 4
    assert made_with["proposals"]["settings"]["pred_iou_thresh"] == 0.7
    assert made_with["proposals"]["settings"]["box_nms_thresh"] == 0.7
    assert made_with["features"]["settings"]["image_size"] == 96
    assert made_with["features"]["settings"]["depth"] == 5
    assert made_with["labeler"]["settings"]["unassigned"] == 0


@pytest.mark.parametrize(
    ("sam", "model", "checkpoint"),
    [
        ("vit_l", "vit_l", None),
        ("mobile_sam", "vit_t", None),
        ("tiny", "tiny", None),
        ("mine/sam_vit_b_tuned.pth", "vit_b", "mine/sam_vit_b_tuned.pth"),
        ("mobile_sam.pt", "vit_t", "mobile_sam.pt"),
    ],
)
def test_a_sam_is_named_by_its_model_or_its_checkpoint(sam, model, checkpoint):
    chosen = settings(choose(Asked(classes="cat, dog", sam=sam)), "proposals")

    assert (chosen["model"], chosen["checkpoint"]) == (model, checkpoint)


def test_a_checkpoint_whose_name_says_nothing_needs_the_model():
    with pytest.raises(SettingsError, match="its name does not tell the model"):
        choose(Asked(classes="cat, dog", sam="best.pth"))

    asked = Asked(classes="cat, dog", sam="best.pth", changes={"proposals.model": "vit_l"})
    assert settings(choose(asked), "proposals")["model"] == "vit_l"


@pytest.mark.parametrize(
    ("clip", "model", "pretrained"),
    [
        ("ViT-L-14-quickgelu:openai", "ViT-L-14-quickgelu", "openai"),
        ("ViT-B-16:laion2b_s34b_b88k", "ViT-B-16", "laion2b_s34b_b88k"),
        ("ViT-B-16:mine/clip.pt", "ViT-B-16", "mine/clip.pt"),
    ],
)
def test_a_clip_is_named_as_in_open_clip_with_tag_or_file(clip, model, pretrained):
    chosen = settings(choose(Asked(classes="cat, dog", clip=clip)), "features")

    assert (chosen["model"], chosen["pretrained"]) == (model, pretrained)


def test_a_cosine_has_a_threshold_of_its_own_and_masks_choose_theirs():
    cosine = choose(Asked(classes="cat, dog", changes={"labeler.score": "cosine"}))
    fitted = choose(Asked(classes="cat, dog", calibrated=True))

    assert cosine.threshold == settings(cosine, "labeler")["threshold"] == 0.25
    assert fitted.threshold is None
    assert settings(fitted, "labeler")["threshold"] == "calibrated_per_class"
    assert settings(fitted, "labeler")["confidence"] == "calibrated"


def test_a_labeler_that_reads_label_maps_sees_photos_at_their_size(tmp_path):
    asked = Asked(classes="cat", labeler="sepl", changes={"labeler.folder": str(tmp_path)})

    assert choose(asked).max_side is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"threshold": 0.5, "calibrated": True}, "masks choose thresholds; leave one out"),
        ({"changes": {"features.depht": 3}}, "depht: there is no such setting"),
        ({"features": "clip", "changes": {"features.depth": 3}}, "depth: there is no such setting"),
        ({"changes": {"features": 3}}, "Write part.setting=value"),
        ({"clip": "tiny", "templates": "imagenet80"}, "imagenet80"),
    ],
)
def test_choices_that_do_not_go_together_are_one_line(asked, message):
    with pytest.raises(SettingsError, match=message):
        choose(Asked(classes="cat, dog", **asked))
