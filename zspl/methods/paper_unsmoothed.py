"""The paper's method without label smoothing, for the paper's ablation of it.

All else is as in `paper`: the model where it is sure, the zero-shot label elsewhere, every pixel
with a label teaching. The file exists because a benchmark names a cell by its method.
"""

from pydantic import Field

from zspl.methods import Method
from zspl.methods._gated import NEEDS, GatedMethod
from zspl.methods._gates import GateSettings

__all__ = ["NEEDS", "Settings", "build"]


class Settings(GateSettings):
    """Settings of the method: the paper's values and open gates, but for the smoothing."""

    smoothing: float | None = Field(
        default=0.0, ge=0, lt=1, description="As in `paper`, where null (1 / classes) is published."
    )


def build(settings: Settings) -> Method:
    """Build the method."""
    return GatedMethod(settings)
