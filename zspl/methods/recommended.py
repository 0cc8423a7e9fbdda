"""What we recommend in place of the paper's rule: the zero-shot label is a witness, not a teacher.

The paper teaches the raw zero-shot label wherever the model is unsure (eq. 7), mistakes included,
and the model wherever it is sure, however early (methods.md 2.6 tells how that collapses). Here
both are heard at once: how often each zero-shot label is right, and what it is mistaken for, is
counted on the labeled images, and as in Bayes' rule that is added to what the model says of a
pixel,

    log p(c | pixel, claim) = log p_model(c | pixel) + e log P(claim | c) + const.

The weight e is 2 and not Bayes' 1, since a model of few labels is surer than it is right. A pixel
teaches if the result is sure, and its likeliest class is the label; else nobody does. And batch
norm's running statistics are those of clean crops, not of strong views and dropped features that
no photo looks like. It is the method `enhanced` with other defaults; docs/results.md compares them.
"""

from typing import Literal

from pydantic import Field

from zspl.methods import Method
from zspl.methods._gated import NEEDS, GatedMethod
from zspl.methods._gates import GateSettings

__all__ = ["NEEDS", "Settings", "build"]


class Settings(GateSettings):
    """Settings of the method; what is not named here is as in `enhanced`."""

    evidence: float | None = Field(
        default=2.0, ge=0, description="Weight of the zero-shot label's log-likelihood; 1: Bayes."
    )
    unsure: Literal["zero_shot", "nobody"] = Field(
        default="nobody", description="Who teaches where both together are unsure."
    )
    counted: Literal["labeled", "all"] = Field(
        default="all", description="Losses are divided by all pixels that are no padding."
    )
    streams: Literal["published", "lean"] = Field(
        default="lean", description="As in `enhanced`; nothing published has to be met here."
    )
    statistics: Literal["all", "clean"] = Field(
        default="clean", description="As in `enhanced`; it costs nothing and gains points."
    )


def build(settings: Settings) -> Method:
    """Build the method."""
    return GatedMethod(settings)
