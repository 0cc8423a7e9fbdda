"""Confidence that can be believed: temperature and bias, fitted where masks are known.

Platt, "Probabilistic outputs for support vector machines", 1999; temperature scaling as in Guo et
al., "On calibration of modern neural networks", ICML 2017.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

_EDGE = 1e-6
"""Confidences are kept this far from 0 and 1 before their log odds are taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Temperature:
    """One monotone map of a confidence: sigmoid(log odds / temperature + bias).

    `temperature` is positive, so the order of confidences never changes.
    """

    temperature: float
    bias: float

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.bias)):
            raise ValueError(
                f"expected a positive temperature and a finite bias, got {self.temperature:g} "
                f"and {self.bias:g}"
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Temperature":
        """Return the map that was written as JSON."""
        return cls(temperature=float(values["temperature"]), bias=float(values["bias"]))

    def __call__(self, confidence: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """Map raw confidences in [0, 1] to calibrated ones in [0, 1]."""
        return torch.sigmoid(log_odds(confidence) / self.temperature + self.bias)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfidenceFit:
    """How raw confidences become probabilities of being right.

    One map for pixels whose class scored above its threshold, one for those below, one for those
    to which no threshold applies. None where there was too little to fit on: the raw confidence
    stays.
    """

    claimed: Temperature | None = None
    unclaimed: Temperature | None = None
    fixed: Temperature | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the pairs as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ConfidenceFit":
        """Return what `as_json` was made from."""
        return cls(
            **{
                name: None if values.get(name) is None else Temperature.from_json(values[name])
                for name in ("claimed", "unclaimed", "fixed")
            }
        )


def log_odds(confidence: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return log(c / (1 - c)), with c kept a millionth away from 0 and 1."""
    return torch.logit(confidence.double(), eps=_EDGE)


_SLOPES = (0.05, 20.0)
"""Bounds of the slope on standardised log odds: the order stays, separable data stay finite."""

_NARROW = 1e-3
"""The least spread of log odds that is taken for one."""

_PULL = 1e-3
"""Weight of the pull towards a slope of 1 and no more bias than the share of hits needs."""

_STEPS = 100


def fit_temperature(
    odds: Float[Tensor, " n"],
    right: Bool[Tensor, " n"],
    pixels: Int64[Tensor, " n"],
    *,
    images: int,
) -> Temperature:
    """Fit temperature and bias by the mean negative log likelihood.

    If all labels are right or all are wrong, there is nothing to tell apart: then nearly all get
    the rule of succession, (images + 1) / (images + 2) or 1 / (images + 2).

    Args:
        odds: Log odds of raw confidences, at least one.
        right: Whether the label was right.
        pixels: How many pixels each entry stands for.
        images: How many images they come from.
    """
    weight = pixels.double() / pixels.sum()
    share = (weight * right).sum().item()
    x = odds.double()
    centre = (weight * x).sum()
    spread = (weight * (x - centre).square()).sum().sqrt().clamp_min(_NARROW)
    if not 0 < share < 1:
        slope = _SLOPES[0] / spread.item()
        bias = math.copysign(math.log(images + 1), share - 0.5)
        return Temperature(temperature=1 / slope, bias=bias - slope * centre.item())
    problem = _Logistic(
        x=(x - centre) / spread,
        right=right.double(),
        weight=weight,
        start=torch.tensor([1.0, math.log(share / (1 - share))], dtype=torch.float64),
    )
    found = problem.minimum(problem.start, free=torch.tensor([True, True]))
    low, high = _SLOPES
    if not low <= found[0] <= high:
        # The problem is convex, so the best slope inside the bounds is the nearer bound.
        found[0] = found[0].clamp(low, high)
        found = problem.minimum(found, free=torch.tensor([False, True]))
    slope = (found[0] / spread).item()
    return Temperature(temperature=1 / slope, bias=found[1].item() - slope * centre.item())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Logistic:
    """The mean negative log likelihood of hits under sigmoid(slope * x + bias), with a pull.

    Newton's method in two unknowns; torch.optim would import a compiler for it.
    """

    x: Float[Tensor, " n"]
    right: Float[Tensor, " n"]
    weight: Float[Tensor, " n"]
    start: Float[Tensor, "2"]

    def loss(self, at: Float[Tensor, "2"]) -> float:
        odds = at[0] * self.x + at[1]
        likelihood = F.binary_cross_entropy_with_logits(
            odds, self.right, weight=self.weight, reduction="sum"
        )
        return (likelihood + _PULL * (at - self.start).square().sum()).item()

    def minimum(self, at: Float[Tensor, "2"], *, free: Bool[Tensor, "2"]) -> Float[Tensor, "2"]:
        """Return the minimum over the unknowns that are free."""
        basis = torch.stack([self.x, torch.ones_like(self.x)])
        for _ in range(_STEPS):
            p = torch.sigmoid(at[0] * self.x + at[1])
            slope = basis @ (self.weight * (p - self.right)) + 2 * _PULL * (at - self.start)
            bend = (basis * (self.weight * p * (1 - p))) @ basis.T + 2 * _PULL * torch.eye(2)
            step = torch.zeros_like(at)
            step[free] = torch.linalg.solve(bend[free][:, free], slope[free])
            length, before = 1.0, self.loss(at)
            while self.loss(at - length * step) > before and length > _EDGE:
                length /= 2
            at = at - length * step
            if (length * step).abs().max() < _EDGE:
                break
        return at
