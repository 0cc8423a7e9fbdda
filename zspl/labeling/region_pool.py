"""The paper's annotation: average the features inside each SAM segment, then name the segment."""

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from zspl.labeling import LabelInputs
from zspl.labeling._decision import Thresholded
from zspl.labeling._pooling import pool
from zspl.labeling._regions import RegionInputs, RegionScores, RegionSettings, label_regions
from zspl.labeling._scoring import Scored, scores


class Settings(RegionSettings):
    """Settings of SAM-based pooling."""

    normalise_tokens: bool = Field(
        default=False,
        description="Pool unit vectors instead of eq. 1's raw features; changes nothing where the "
        "encoder looks at segments one by one.",
    )


class RegionPool(Thresholded):
    """Names segments by the similarity of their pooled features with the class texts."""

    needs = frozenset({"proposals", "features"})

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings

    def score(self, inputs: LabelInputs) -> Scored:
        """Find the class that each pixel would get, and its score (eq. 1 and 2).

        Unlike the paper, an encoder that looks at segments one by one leaves nothing to pool: its
        embedding of a segment is taken as it is.

        Raises:
            ValueError: if `inputs` lack proposals, features or texts, or the encoder gave another
                number of segments than there are proposals.
        """
        given = RegionInputs.of(inputs, labeler="region_pool")
        per_text = given.texts.cosines(self._vectors(given))
        cosines = given.texts.by_class(per_text)
        probabilities = given.texts.by_class(scores(per_text, "probability"))
        score = probabilities if self._settings.score == "probability" else cosines
        regions = RegionScores(
            votes=score, score=score, cosines=cosines, probabilities=probabilities
        )
        return label_regions(given, regions, self._settings)

    def _vectors(self, given: RegionInputs) -> Float[Tensor, "N D"]:
        masks, seen = given.proposals.masks, given.features.segments
        if seen is None:
            normalise = self._settings.normalise_tokens
            return pool(given.features.grid, masks, normalise=normalise)
        if len(seen) != len(masks):
            raise ValueError(
                f"the encoder saw {len(seen)} segments, but there are {len(masks)} proposals; "
                "embed again with these proposals"
            )
        return seen


def build(settings: Settings) -> RegionPool:
    """Return the labeler."""
    return RegionPool(settings)
