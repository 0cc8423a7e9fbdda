"""What is painted and how sure it is: thresholds, and the confidence that goes along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zspl.labeling._confidence import ConfidenceFit, Temperature
from zspl.labeling._scoring import Scored, ScoreSettings
from zspl.records import PseudoLabel


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """When a class is painted, and what its confidence means.

    A class needs a score above its entry in `class_thresholds` (by class id), or above
    `threshold` without one. With a `confidence` fit, the confidence of a pixel is the probability
    that its label is right; without one it is the raw certainty.
    """

    threshold: float
    class_thresholds: Mapping[int, float] = field(default_factory=dict)
    confidence: ConfidenceFit | None = None

    @classmethod
    def plain(cls, threshold: float) -> "Decision":
        """Return one threshold for all classes, with raw confidence."""
        return cls(threshold=threshold)

    def of(self, class_id: int) -> float:
        """Return the threshold of a class."""
        return self.class_thresholds.get(class_id, self.threshold)

    def as_json(self) -> dict[str, Any]:
        """Return the decision as JSON values; class ids become text."""
        return {
            "threshold": self.threshold,
            "class_thresholds": {str(k): v for k, v in sorted(self.class_thresholds.items())},
            "confidence": None if self.confidence is None else self.confidence.as_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Decision":
        """Return the decision that `as_json` wrote."""
        fit = values.get("confidence")
        return cls(
            threshold=float(values["threshold"]),
            class_thresholds={
                int(k): float(v) for k, v in values.get("class_thresholds", {}).items()
            },
            confidence=None if fit is None else ConfidenceFit.from_json(fit),
        )


class Thresholded:
    """The part of a labeler that thresholds of the user or calibrated ones control."""

    def __init__(self, settings: ScoreSettings) -> None:
        self._score_settings = settings

    @property
    def threshold(self) -> float | Literal["calibrated", "calibrated_per_class"] | None:
        """The score that a class must exceed, or how it is found."""
        return self._score_settings.threshold

    @property
    def confidence(self) -> Literal["raw", "calibrated"]:
        """Whether the confidence is fitted on the labeled images."""
        return self._score_settings.confidence

    @property
    def unassigned(self) -> int:
        """The label below the threshold: 0 or 255."""
        return self._score_settings.unassigned

    def files(self, image_ids: Sequence[str]) -> list[Path]:  # noqa: ARG002 - of the protocol
        """Return no files: proposals and features are read by the caller."""
        return []

    def assign(self, scored: Scored, decision: Decision) -> PseudoLabel:
        """Paint the classes whose score exceeds their threshold."""
        return assign(scored, decision, unassigned=self.unassigned)


def assign(scored: Scored, decision: Decision, *, unassigned: int) -> PseudoLabel:
    """Keep the classes whose score is higher than their threshold; the rest gets `unassigned`."""
    keep = scored.score > _limits(scored, decision)
    rows = tuple(
        row if score > decision.of(row.assigned) else replace(row, assigned=unassigned)
        for row, score in zip(scored.segments, scored.segment_scores, strict=True)
    )
    return PseudoLabel(
        label=torch.where(keep, scored.best, unassigned),
        confidence=confidence_of(
            scored.confidence, keep, fixed=torch.isinf(scored.score), fit=decision.confidence
        ),
        segments=rows,
    )


def _limits(scored: Scored, decision: Decision) -> float | Float[Tensor, "H W"]:
    """Return the threshold of every pixel's class, one number where they are all the same."""
    if not decision.class_thresholds:
        return decision.threshold
    by_class = torch.full((256,), decision.threshold)
    for class_id, threshold in decision.class_thresholds.items():
        by_class[class_id] = threshold
    return by_class[scored.best.long()]


def confidence_of(
    certainty: Float[Tensor, "*N"],
    keep: Bool[Tensor, "*N"],
    *,
    fixed: Bool[Tensor, "*N"],
    fit: ConfidenceFit | None,
) -> Float[Tensor, "*N"]:
    """Return the confidence of each pixel: c where the class is kept, 1 - c elsewhere, fitted.

    Args:
        certainty: c in [0, 1], as it belongs to the best class.
        keep: Where the best class is painted.
        fixed: Where no threshold applies.
        fit: The maps to apply, None for none.
    """
    raw = torch.where(keep, certainty, 1 - certainty)
    if fit is None:
        return raw
    mapped = torch.where(keep, _mapped(raw, fit.claimed), _mapped(raw, fit.unclaimed))
    return torch.where(fixed, _mapped(raw, fit.fixed), mapped)


def _mapped(raw: Float[Tensor, "*N"], fit: Temperature | None) -> Float[Tensor, "*N"]:
    return raw if fit is None else fit(raw).to(raw.dtype)
