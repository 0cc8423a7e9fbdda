"""Ways to look at an image with a network: whole, through windows, mirrored, at several sizes.

A view gives class probabilities, so views are made from each other, the inner one first:

    look = multi_scale(flipped(sliding_window(model, window=801)), scales=(0.75, 1.0, 1.25))

`combined` does so from settings.

B images, C classes, H W pixels. Networks are expected in evaluation mode.
"""

from collections.abc import Callable, Iterator, Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Network = Callable[[Tensor], Tensor]
"""Normalised images Float[B 3 H W] -> class logits Float[B C H W]."""

View = Callable[[Tensor], Tensor]
"""Normalised images Float[B 3 H W] -> class probabilities Float[B C H W], a new tensor."""


def whole(model: Network) -> View:
    """Look at the whole image at once: the softmax of one forward pass."""

    def look(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H W"]:
        return model(images).softmax(dim=1)

    return look


def sliding_window(model: Network, *, window: int, stride: int | None = None) -> View:
    """Look through square windows and average the probabilities where they overlap.

    UniMatch's evaluation of Cityscapes (window 801): windows begin at 0, stride, 2 stride, ... as
    long as that is inside the image; those that reach beyond its edge are cut off there, not moved
    back. It sums where this averages, which has the same most likely class; the mean can be
    averaged with other views. One window is in the network at a time; beside it there are the
    B*C*H*W probabilities.

    Args:
        model: The network.
        window: Side of a window, in pixels.
        stride: Pixels from one window to the next, at most `window`; None: two thirds of it,
            rounded down.

    Raises:
        ValueError: if the stride is not in 1..window.
    """
    step = window * 2 // 3 if stride is None else stride
    if not 1 <= step <= window:
        raise ValueError(f"expected a stride from 1 to the window's {window}, got {step}")

    def look(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H W"]:
        height, width = images.shape[-2:]
        total, times = None, images.new_zeros(height, width)
        for rows in _steps(height, window, step):
            for columns in _steps(width, window, step):
                seen = model(images[:, :, rows, columns]).softmax(dim=1)
                if total is None:
                    total = seen.new_zeros(*seen.shape[:2], height, width)
                total[:, :, rows, columns] += seen
                times[rows, columns] += 1
        if total is None:
            raise ValueError(f"expected images of at least one pixel, got {tuple(images.shape)}")
        return total.div_(times)

    return look


def _steps(size: int, window: int, stride: int) -> Iterator[slice]:
    """Yield the parts of 0, ..., size - 1 that the windows see."""
    for start in range(0, size, stride):
        yield slice(start, min(size, start + window))


def combined(model: Network, *, window: int | None, scales: Sequence[float], flip: bool) -> View:
    """Look at an image in all of these ways and average the probabilities.

    Args:
        model: The network.
        window: As `sliding_window` takes it, at each size; None: the whole image.
        scales: As `multi_scale` takes them.
        flip: Whether each size is also seen mirrored.

    Raises:
        ValueError: if the window or a scale is too small.
    """
    look = whole(model) if window is None else sliding_window(model, window=window)
    return multi_scale(flipped(look) if flip else look, scales=scales)


def flipped(look: View) -> View:
    """Average a view with the one of the image mirrored left to right."""

    def both(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H W"]:
        mirrored = look(images.flip(-1)).flip(-1)
        return mirrored.add_(look(images)).div_(2)

    return both


def multi_scale(look: View, *, scales: Sequence[float]) -> View:
    """Average a view over sizes of the image.

    ST++'s test-time augmentation: images and probabilities are resized bilinearly with aligned
    corners, to int(scale * side) pixels and back.

    Args:
        look: The view of each size.
        scales: Factors of height and width, each above 0; ST++ takes 0.5, 0.75, 1, 1.5 and 2.

    Raises:
        ValueError: if there is no scale or one is not above 0.
    """
    if not scales or min(scales) <= 0:
        raise ValueError(f"expected at least one scale, each above 0, got {tuple(scales)}")

    def at_all(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H W"]:
        size = (images.shape[-2], images.shape[-1])
        total = images.new_zeros(())
        for scale in scales:
            scaled = (max(1, int(size[0] * scale)), max(1, int(size[1] * scale)))
            total = total + _resized(look(_resized(images, scaled)), size)
        return total.div_(len(scales))

    return at_all


def _resized(maps: Float[Tensor, "B C H W"], size: tuple[int, int]) -> Float[Tensor, "B C h w"]:
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
