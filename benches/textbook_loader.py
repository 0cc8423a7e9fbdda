"""UniMatch's loader as methods.md 2.2 states it, written plainly: all in Pillow, whole photos."""

import math

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms

IGNORED, PADDED = 255, 254
JITTERED, MIRRORED, BLURRED, BOXED = 0.8, 0.5, 0.5, 0.5
JITTER = transforms.ColorJitter(0.5, 0.5, 0.5, 0.25)
GREY = transforms.RandomGrayscale(p=0.2)
TO_TENSOR = transforms.Compose(
    [
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


def step(labeled, unlabeled, *, side, seed):
    """Return 8 labeled and twice 8 unlabeled samples, collated, from (photo, mask) paths."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    return [
        _collated([labeled_sample(pair, side, rng) for pair in labeled]),
        *(_collated([unlabeled_sample(pair, side, rng) for pair in unlabeled]) for _ in range(2)),
    ]


def labeled_sample(pair, side, rng):
    image, mask = _geometry(pair, side, rng, fill=IGNORED)
    return TO_TENSOR(image), torch.from_numpy(np.array(mask)).long()


def unlabeled_sample(pair, side, rng):
    image, mask = _geometry(pair, side, rng, fill=PADDED)
    (first, box1), (second, box2) = ((_strong(image, rng), _box(side, rng)) for _ in range(2))
    mask = torch.from_numpy(np.array(mask)).long()
    ignored = torch.zeros_like(mask)
    ignored[mask == PADDED] = IGNORED
    return TO_TENSOR(image), TO_TENSOR(first), TO_TENSOR(second), ignored, box1, box2


def _collated(samples):
    return [torch.stack(tensors) for tensors in zip(*samples, strict=True)]


def _geometry(pair, side, rng, *, fill):
    image, mask = Image.open(pair[0]).convert("RGB"), Image.open(pair[1])
    width, height = image.size
    longest = max(width, height)
    long = int(rng.integers(int(0.5 * longest), int(2.0 * longest), endpoint=True))
    if height > width:
        size = (int(width * long / height + 0.5), long)
    else:
        size = (long, int(height * long / width + 0.5))
    image = image.resize(size, Image.Resampling.BILINEAR)
    mask = mask.resize(size, Image.Resampling.NEAREST)
    missing = (0, 0, max(side - size[0], 0), max(side - size[1], 0))
    image, mask = ImageOps.expand(image, missing, fill=0), ImageOps.expand(mask, missing, fill=fill)
    x = int(rng.integers(0, image.width - side, endpoint=True))
    y = int(rng.integers(0, image.height - side, endpoint=True))
    image, mask = (of.crop((x, y, x + side, y + side)) for of in (image, mask))
    if rng.random() < MIRRORED:
        image, mask = ImageOps.mirror(image), ImageOps.mirror(mask)
    return image, mask


def _strong(image, rng):
    if rng.random() < JITTERED:
        image = JITTER(image)
    image = GREY(image)
    if rng.random() < BLURRED:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))
    return image


def _box(side, rng):
    box = torch.zeros(side, side)
    if rng.random() > BOXED:
        return box
    area = rng.uniform(0.02, 0.4) * side * side
    while True:
        ratio = rng.uniform(0.3, 1 / 0.3)
        width, height = int(math.sqrt(area / ratio)), int(math.sqrt(area * ratio))
        x, y = int(rng.integers(0, side)), int(rng.integers(0, side))
        if x + width <= side and y + height <= side:
            box[y : y + height, x : x + width] = 1
            return box
