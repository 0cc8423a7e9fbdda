from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch.nn import functional as F

from zspl.errors import SettingsError
from zspl.methods import SelfLabels, stpp
from zspl.models.network import SegmentationNetwork
from zspl.records import LabeledBatch, UnlabeledBatch
from zspl.sections import plugin_settings


class Seeing(torch.nn.Module):
    """A backbone whose logits are its input; it remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        return [images]


class Passing(torch.nn.Module):
    """A decoder that returns the first feature map."""

    def forward(self, features, size):  # noqa: ARG002 - as the network calls it
        return features[0]


def batches(batch=4, size=16, classes=3):
    draw = torch.Generator().manual_seed(0)

    def images():
        return torch.randn(batch, 3, size, size, generator=draw)

    def ids():
        label = torch.randint(0, classes, (batch, size, size), generator=draw)
        label[:, :2] = 255
        return label

    nothing = torch.zeros(batch, size, size, dtype=torch.bool)
    main = UnlabeledBatch(
        weak=images(),
        strong1=images(),
        strong2=images(),
        padding=nothing,
        box1=nothing,
        box2=nothing,
        zero_shot=ids(),
    )
    return LabeledBatch(image=images(), label=ids()), main


def test_the_first_round_is_supervised_training():
    labeled, _ = batches()
    model = SegmentationNetwork(Seeing(), Passing())
    loss = stpp.build(stpp.Settings())(model, labeled, None, None)
    expected = F.cross_entropy(labeled.image, labeled.label, ignore_index=255)
    torch.testing.assert_close(loss.total, expected)


def test_the_later_rounds_average_over_all_labeled_pixels_of_both_lists():
    labeled, main = batches()
    model = SegmentationNetwork(Seeing(), Passing())
    loss = stpp.build(stpp.Settings(cutout=0.5))(model, labeled, main, None)
    (seen,) = model.backbone.seen
    assert torch.equal(seen[:4], labeled.image)
    # A hole shows where the strong view is not what the batch holds.
    hole = (seen[4:] != main.strong1).any(dim=1)
    assert hole.any()
    assert not hole.all()
    label = main.zero_shot.clone()
    label[hole] = 255
    expected = F.cross_entropy(seen, torch.cat([labeled.label, label]), ignore_index=255)
    torch.testing.assert_close(loss.total, expected)


def test_without_cutout_the_strong_view_is_as_loaded():
    labeled, main = batches()
    model = SegmentationNetwork(Seeing(), Passing())
    stpp.build(stpp.Settings(cutout=0.0))(model, labeled, main, None)
    assert torch.equal(model.backbone.seen[0][4:], main.strong1)


def test_a_cutout_is_a_rectangle_of_the_published_size_with_probability_one_half():
    torch.manual_seed(0)
    holes = stpp.draw_cutouts(600, 64, probability=0.5)
    present = holes.flatten(1).any(dim=1)
    assert 0.43 < present.float().mean() < 0.57
    for hole in holes[present]:
        rows, columns = hole.any(dim=1), hole.any(dim=0)
        height, width = int(rows.sum()), int(columns.sum())
        assert int(hole.sum()) == height * width
        # Sides are cut to whole pixels, which takes less than a row and a column off.
        assert height * width <= 0.4 * 64 * 64
        assert (height + 1) * (width + 1) > 0.02 * 64 * 64
        assert (height + 1) / width > 0.3
        assert height / (width + 1) < 1 / 0.3


def test_the_area_is_drawn_again_with_the_corner_which_favours_small_holes():
    torch.manual_seed(0)
    holes = stpp.draw_cutouts(800, 64, probability=1.0)
    mean = holes.float().mean().item()
    # With the area drawn once it would be near its mean 0.21.
    assert 0.1 < mean < 0.18


def test_a_hole_is_filled_with_8_bit_noise():
    images = torch.zeros(2, 3, 32, 32)
    noise = stpp.noise_like(images)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = (noise * std + mean) * 255
    torch.testing.assert_close(pixels, pixels.round(), atol=1e-3, rtol=0)
    assert pixels.min() > -0.01
    assert 250 < pixels.max() < 254.01
    assert 120 < pixels.mean() < 134


def test_the_schedule_is_the_published_one():
    first, second, third = stpp.build(stpp.Settings()).rounds()
    assert first.needs == {"labeled"}
    assert first.kept == (Fraction(1, 3), Fraction(2, 3), 1)
    assert first.self_labels is None
    scales = (0.5, 0.75, 1.0, 1.5, 2.0)
    assert second.self_labels == SelfLabels(share=0.5, scales=scales, flip=True)
    assert third.self_labels == SelfLabels(share=1.0, scales=scales, flip=True)
    assert [r.length for r in (first, second, third)] == [1.0, 1.0, 1.0]
    assert second.needs == third.needs == {"labeled", "unlabeled", "labels"}


def test_a_setting_out_of_range_is_refused():
    for wrong in ({"reliable_share": 0}, {"label_scales": ()}, {"lengths": (1, 1)}, {"x": 1}):
        with pytest.raises(SettingsError, match=r"zspl/methods/stpp.py has 1 problem"):
            plugin_settings("zspl.methods", "stpp", wrong)


def test_unlabeled_images_without_labels_are_refused():
    labeled, main = batches()
    with pytest.raises(ValueError, match="unlabeled images with labels"):
        stpp.build(stpp.Settings())(
            SegmentationNetwork(Seeing(), Passing()), labeled, replace(main, zero_shot=None), None
        )
