import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from zspl import inference
from zspl.data.loading import normalise
from zspl.models import SegmentationNetwork
from zspl.models.views import combined, flipped, multi_scale, sliding_window, whole

CLASSES = 5


@pytest.fixture
def network():
    """Two convolutions, so that what a window shows changes the pixels near its edge."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, CLASSES, 5, padding=2)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def images(height, width, seed=0, count=1):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def plain_windows(network, image, window):
    """UniMatch's evaluation: windows from 0 on, cut off at the edge, softmax summed."""
    height, width = image.shape[-2:]
    total = torch.zeros(1, CLASSES, height, width)
    row = 0
    while row < height:
        column = 0
        while column < width:
            bottom, right = min(height, row + window), min(width, column + window)
            logits = network(image[:, :, row:bottom, column:right])
            total[:, :, row:bottom, column:right] += logits.softmax(dim=1)
            column += int(window * 2 / 3)
        row += int(window * 2 / 3)
    return total


@pytest.mark.parametrize(
    ("height", "width", "window"),
    [(40, 61, 24), (24, 24, 24), (7, 9, 24), (33, 17, 16), (50, 20, 9), (25, 16, 8)],
)
def test_windows_give_the_classes_of_the_plain_loop_and_its_sums_as_means(
    network, height, width, window
):
    image = images(height, width)
    expected = plain_windows(network, image, window)
    look = sliding_window(network, window=window)(image)
    assert (look.argmax(dim=1) == expected.argmax(dim=1)).all()
    torch.testing.assert_close(look, expected / expected.sum(dim=1, keepdim=True))


def test_a_window_of_cityscapes_moves_by_534_and_sees_eight_parts():
    seen = []

    def network(part):
        seen.append(tuple(part.shape[-2:]))
        return part

    sliding_window(network, window=801)(torch.zeros(1, 3, 1024, 2048))
    assert seen == [(h, w) for h in (801, 490) for w in (801, 801, 801, 446)]


def test_every_pixel_is_seen_and_probabilities_sum_to_one(network):
    for stride in (1, 5, 12):
        look = sliding_window(network, window=12, stride=stride)(images(20, 31))
        torch.testing.assert_close(look.sum(dim=1), torch.ones(1, 20, 31))


def test_a_window_as_large_as_the_image_is_the_whole_image(network):
    image = images(20, 31, count=2)
    once = sliding_window(network, window=31, stride=31)(image)
    assert torch.equal(once, whole(network)(image))
    assert torch.equal(once, network(image).softmax(dim=1))


def test_the_network_never_sees_more_than_one_window(network, count_costs):
    """The largest tensor is the result, or a layer of one window; not a layer of the image."""
    height, width, window = 120, 150, 30
    with count_costs() as costs:
        sliding_window(network, window=window)(images(height, width))
    result = 4 * CLASSES * height * width
    layer_of_window, layer_of_image = 4 * 8 * window**2, 4 * 8 * height * width
    assert costs.largest == max(result, layer_of_window) < layer_of_image


@pytest.mark.parametrize("stride", [0, 13, -1])
def test_a_stride_that_leaves_gaps_or_stands_still_is_refused(network, stride):
    with pytest.raises(ValueError, match=f"a stride from 1 to the window's 12, got {stride}"):
        sliding_window(network, window=12, stride=stride)


def test_windows_of_one_pixel_have_no_two_thirds(network):
    with pytest.raises(ValueError, match="got 0"):
        sliding_window(network, window=1)


def test_a_flipped_view_is_the_mean_of_image_and_mirror_image(network):
    image = images(11, 14, count=2)
    plain = network(image).softmax(dim=1)
    mirrored = network(image.flip(3)).softmax(dim=1).flip(3)
    torch.testing.assert_close(flipped(whole(network))(image), (plain + mirrored) / 2)


def test_a_flipped_view_of_the_mirror_image_is_mirrored(network):
    image = images(11, 14)
    look = flipped(whole(network))
    torch.testing.assert_close(look(image.flip(3)), look(image).flip(3))


def test_several_sizes_are_those_of_stpp(network):
    """Its loop, written out: resize, softmax, resize back, mirrored too, sum."""
    image, scales = images(21, 30), (0.5, 0.75, 1.0, 1.5, 2.0)
    total = torch.zeros(1, CLASSES, 21, 30)
    for scale in scales:
        size = (int(21 * scale), int(30 * scale))
        scaled = F.interpolate(image, size=size, mode="bilinear", align_corners=True)
        for flip in (False, True):
            seen = network(scaled.flip(3) if flip else scaled).softmax(dim=1)
            seen = seen.flip(3) if flip else seen
            total += F.interpolate(seen, size=(21, 30), mode="bilinear", align_corners=True)
    look = multi_scale(flipped(whole(network)), scales=scales)(image)
    torch.testing.assert_close(look, total / 10)


def test_scale_one_alone_changes_nothing(network):
    image = images(9, 12)
    assert torch.equal(multi_scale(whole(network), scales=(1.0,))(image), whole(network)(image))


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -2.0)])
def test_scales_that_make_no_image_are_refused(network, scales):
    with pytest.raises(ValueError, match="at least one scale, each above 0"):
        multi_scale(whole(network), scales=scales)


def test_a_scale_never_makes_an_image_vanish(network):
    look = multi_scale(whole(network), scales=(0.01,))(images(9, 12))
    assert look.shape == (1, CLASSES, 9, 12)


def test_views_of_views_leave_the_image_as_it_was(network):
    image = images(20, 26)
    before = image.clone()
    look = multi_scale(flipped(sliding_window(network, window=10)), scales=(0.5, 1.0, 1.5))
    torch.testing.assert_close(look(image).sum(dim=1), torch.ones(1, 20, 26))
    assert torch.equal(image, before)


def test_the_most_likely_classes_of_a_photo_are_those_of_predict(network):
    pixels = np.random.default_rng(0).integers(0, 255, (13, 18, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    label = inference.most_likely(whole(network), photo, device=torch.device("cpu"))
    expected = network(normalise(photo).unsqueeze(0))[0].argmax(dim=0)
    assert label.dtype == torch.uint8
    assert torch.equal(label.long(), expected)


def photo(height=26, width=31):
    pixels = np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_all_ways_together_are_windows_then_mirror_images_then_sizes(network):
    image = images(20, 26)
    look = combined(network, window=10, scales=(0.5, 1.0), flip=True)
    expected = multi_scale(flipped(sliding_window(network, window=10)), scales=(0.5, 1.0))
    assert torch.equal(look(image), expected(image))
    plain = combined(network, window=None, scales=(1.0,), flip=False)
    assert torch.equal(plain(image), whole(network)(image))


class Whole(nn.Module):
    """A backbone of one level: the image itself."""

    def forward(self, images):
        return [images]


class Decoder(nn.Module):
    """A head that gives what a module makes of the only level."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, features, size):  # noqa: ARG002 - of every head
        return self.module(features[0])


def as_network(module):
    return SegmentationNetwork(Whole(), Decoder(module)).eval()


@pytest.mark.parametrize(
    "how",
    [
        {"window": 9},
        {"scales": (0.5, 1.0, 1.5)},
        {"flip": True},
        {"window": 9, "scales": (0.75,), "flip": True},
    ],
)
def test_a_predictor_takes_the_likeliest_class_of_the_mean_probabilities(network, how):
    deployed = as_network(network)
    found = inference.predictor(deployed, **how)(photo())
    every = {"window": None, "scales": (1.0,), "flip": False, **how}
    mean = combined(network, **every)(normalise(photo()).unsqueeze(0))[0]
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), mean.argmax(dim=0))
    assert not torch.equal(found, inference.predict(deployed, photo()))


class Close(nn.Module):
    """Logits of two classes that differ by less than their probabilities can tell."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, 1e-9]))

    def forward(self, images):
        return self.logits.view(1, 2, 1, 1).expand(len(images), 2, *images.shape[2:])


def test_one_plain_pass_compares_logits_bit_for_bit_as_predict_does(network):
    deployed, close = as_network(network), as_network(Close())
    assert torch.equal(inference.predictor(deployed)(photo()), inference.predict(deployed, photo()))
    assert (inference.predictor(close)(photo()) == 1).all()
    assert (inference.predictor(close, flip=True)(photo()) == 0).all()
