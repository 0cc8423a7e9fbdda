"""The paper's rule with gates between the model's label and the zero-shot label, as settings.

As it stands it is the method `paper`, bit for bit: the model where it is sure, the zero-shot
label elsewhere. With few labels the model is seldom sure, so the raw zero-shot labels teach nearly
alone, and a poor one pulls the model down to it (methods.md 2.6). Each gate leaves some zero-shot
labels out, counts them less or weighs them; `recommended` sets those that served best.
"""

from zspl.methods import Method
from zspl.methods._gated import NEEDS, GatedMethod
from zspl.methods._gates import GateSettings

__all__ = ["NEEDS", "Settings", "build"]


class Settings(GateSettings):
    """Settings of the method: the paper's values, and gates that are all open."""


def build(settings: Settings) -> Method:
    """Build the method."""
    return GatedMethod(settings)
