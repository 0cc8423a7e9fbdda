"""Region-level voting: every pixel inside a segment votes for the segment's class.

The second half of Zhang et al., "CorrCLIP: Reconstructing Patch Correlations in CLIP for
Open-Vocabulary Semantic Segmentation", 2024; it works with the dense features of any encoder.
"""

from typing import Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from zspl.labeling import LabelInputs
from zspl.labeling._decision import Thresholded
from zspl.labeling._masks import areas, as_float, bands
from zspl.labeling._pooling import upsampling_matrix
from zspl.labeling._regions import RegionInputs, RegionScores, RegionSettings, label_regions
from zspl.labeling._scoring import Scored, cosine_maps, scores


class Settings(RegionSettings):
    """Settings of region-level voting."""

    vote: Literal["most", "mean"] = Field(
        "most",
        description="most: the class that is the best of most of the segment's pixels; mean: the "
        "class with the best mean score of its pixels.",
    )


class RegionVote(Thresholded):
    """Names segments by the dense labels of their pixels."""

    needs = frozenset({"proposals", "features"})

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings

    def score(self, inputs: LabelInputs) -> Scored:
        """Find the class that each pixel would get; its score is the mean of the segment's pixels.

        Raises:
            ValueError: if `inputs` lack proposals, features or texts.
        """
        given = RegionInputs.of(inputs, labeler="region_vote")
        return label_regions(given, self._counted(given), self._settings)

    def _counted(self, given: RegionInputs) -> RegionScores:
        """Average cosines, probabilities and first choices over the pixels of each segment."""
        masks, texts = given.proposals.masks, given.texts
        kind = self._settings.score
        maps = cosine_maps(given.features, texts)
        wide = maps @ upsampling_matrix(maps.shape[2], masks.shape[2]).T
        tall = upsampling_matrix(maps.shape[1], masks.shape[1])
        sums = torch.zeros(len(masks), 3 * len(texts.ids))
        for rows, inside in bands(masks):
            per_text = (tall[rows] @ wide).flatten(1).T
            cosines = texts.by_class(per_text)
            probabilities = texts.by_class(scores(per_text, "probability"))
            best = (probabilities if kind == "probability" else cosines).argmax(dim=1)
            first = F.one_hot(best, len(texts.ids)).float()
            pixels = as_float(masks[inside, rows]).flatten(1)
            sums[inside] += pixels @ torch.cat([cosines, probabilities, first], dim=1)
        means = sums / torch.tensor(areas(masks)).clamp(min=1)[:, None]
        cosines, probabilities, first = means.chunk(3, dim=1)
        score = probabilities if kind == "probability" else cosines
        return RegionScores(
            votes=first if self._settings.vote == "most" else score,
            score=score,
            cosines=cosines,
            probabilities=probabilities,
        )


def build(settings: Settings) -> RegionVote:
    """Return the labeler."""
    return RegionVote(settings)
