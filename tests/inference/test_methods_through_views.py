"""Windows, sizes and mirror images go with what every method evaluates."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from zspl import inference, models, plugins
from zspl.data.loading import normalise
from zspl.methods import Facts
from zspl.models.views import combined
from zspl.sections import build_plugin

METHODS = plugins.names("zspl.methods")
NAMES = ("background", "cat", "dog", "car")
WINDOW, SCALES = 18, (0.75, 1.5)
HEIGHT, WIDTH = 37, 50
"""The last windows are one pixel high, at the photo's own size; the stride is 12."""


@pytest.fixture
def network(request):
    """What a method evaluates, with random weights that are no start values."""
    torch.manual_seed(0)
    plain = models.build(
        backbone={"name": "compact", "widths": (4, 4, 8, 8)},
        head={"name": "deeplabv3plus", "width": 8, "low_width": 4, "dilations": (2,)},
        num_classes=len(NAMES),
    )
    method = build_plugin("zspl.methods", request.param, {})
    adapted = method.adapt(plain, Facts(class_names=NAMES, crop_size=24))
    with torch.no_grad():
        for values in adapted.parameters():
            values.add_(torch.randn_like(values) * 0.3)
    return adapted.eval()


@pytest.fixture
def photos():
    pixels = np.random.default_rng(0).integers(0, 255, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    return [Image.fromarray(photo) for photo in pixels]


def plain_loop(network, image):
    """Return the mean of the softmax over sizes and mirror images, each seen through windows."""
    total, step = 0, WINDOW * 2 // 3
    for scale in SCALES:
        size = (int(HEIGHT * scale), int(WIDTH * scale))
        scaled = F.interpolate(image, size=size, mode="bilinear", align_corners=True)
        for flip in (False, True):
            seen = scaled.flip(3) if flip else scaled
            found, times = torch.zeros(1, len(NAMES), *size), torch.zeros(size)
            for top in range(0, size[0], step):
                for left in range(0, size[1], step):
                    part = (slice(top, top + WINDOW), slice(left, left + WINDOW))
                    found[:, :, *part] += network(seen[:, :, *part]).softmax(dim=1)
                    times[part] += 1
            found = (found / times).flip(3) if flip else found / times
            total += F.interpolate(found, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=True)
    return total / 4


@pytest.mark.parametrize("network", METHODS, indirect=True)
@torch.no_grad()
def test_every_method_is_seen_through_windows_sizes_and_mirror_images(network, photos):
    image = normalise(photos[0]).unsqueeze(0)
    look = combined(network, window=WINDOW, scales=SCALES, flip=True)
    torch.testing.assert_close(look(image), plain_loop(network, image), atol=1e-5, rtol=1e-4)
    found = inference.predictor(network, window=WINDOW, scales=SCALES, flip=True)(photos[0])
    assert torch.equal(found.long(), look(image)[0].argmax(dim=0))
    for other in ({"window": None}, {"scales": (0.75,)}, {"flip": False}):
        way = {"window": WINDOW, "scales": SCALES, "flip": True, **other}
        assert (combined(network, **way)(image) - look(image)).abs().max() > 1e-3, other


@pytest.mark.parametrize("network", METHODS, indirect=True)
@torch.no_grad()
def test_no_method_mixes_the_photos_of_a_batch_or_the_windows_of_a_photo(network, photos):
    images = torch.stack([normalise(photo) for photo in photos])
    look = combined(network, window=WINDOW, scales=(1.0,), flip=True)
    torch.testing.assert_close(look(images)[:1], look(images[:1]), atol=1e-6, rtol=1e-5)
    other = images[:1].clone()
    other[:, :, 24:] = 0
    # Only the windows that begin at row 0 see rows 0 to 11.
    torch.testing.assert_close(look(other)[:, :, :12], look(images[:1])[:, :, :12])


@pytest.mark.parametrize("network", METHODS, indirect=True)
def test_the_last_windows_may_be_one_pixel_high(network, photos):
    label = inference.predictor(network, window=WINDOW)(photos[0])
    assert label.shape == (HEIGHT, WIDTH)
    assert int(label.max()) < len(NAMES)
