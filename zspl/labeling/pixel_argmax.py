"""Dense labels without segments: every pixel gets its most similar class."""

from zspl.labeling import LabelInputs
from zspl.labeling._decision import Thresholded
from zspl.labeling._scoring import ClassTexts, Scored, ScoreSettings, dense_scored


class Settings(ScoreSettings):
    """Settings of the dense label."""


class PixelArgmax(Thresholded):
    """Names pixels by the similarity of the interpolated features with the class texts."""

    needs = frozenset({"features"})

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings

    def score(self, inputs: LabelInputs) -> Scored:
        """Find the class that each pixel would get, and its score.

        Raises:
            ValueError: if `inputs` lack features or texts, or texts lack an embedding.
        """
        if inputs.features is None or inputs.text is None:
            raise ValueError("pixel_argmax needs features and texts")
        texts = ClassTexts.of(inputs.text, inputs.table)
        return dense_scored(inputs.features, texts, self._settings.score)


def build(settings: Settings) -> PixelArgmax:
    """Return the labeler."""
    return PixelArgmax(settings)
