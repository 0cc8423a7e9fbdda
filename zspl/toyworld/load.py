"""The shipped tiny CLIP, ready to use without a network."""

from typing import TYPE_CHECKING

from zspl.toyworld import clip_weights
from zspl.toyworld.vocabulary import CheckedTokenizer

if TYPE_CHECKING:
    import open_clip

Channels = tuple[float, float, float]


def load_clip() -> tuple["open_clip.CLIP", CheckedTokenizer, Channels, Channels, int]:
    """Load the tiny CLIP of this world.

    Returns:
        The stock open_clip model in evaluation mode (float32), its tokenizer, which refuses words
        outside the corpus, the mean and the standard deviation of the pixels per channel
        (for pixels in [0, 1]), and the side of its square input in pixels.

    Raises:
        WeightsError: if the weights are missing.
    """
    model, cfg = clip_weights.read(clip_weights.FOLDER)
    mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
    return (
        model,
        clip_weights.tokenizer(),
        mean,
        std,
        int(cfg["vision_cfg"]["image_size"]),
    )
