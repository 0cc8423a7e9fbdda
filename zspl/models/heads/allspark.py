"""SegFormer's decoder with AllSpark before it: the network of AllSpark's published checkpoints.

The method `allspark` puts the module before any decoder by itself; this decoder serves to start
from a published checkpoint, and to evaluate one.
"""

from collections.abc import Sequence

from pydantic import Field
from torch import nn

from zspl.models.heads import segformer
from zspl.models.heads._allspark import AllSpark, SparkedHead
from zspl.models.network import HeadFactory


class Settings(segformer.Settings):
    """Settings of the decoder, with the published values."""

    heads: int = Field(default=2, gt=0, description="Of AllSpark's attention.")
    attention_dropout: float = Field(
        default=0.1, ge=0, lt=1, description="On AllSpark's attention and on its output."
    )


def build(settings: Settings) -> HeadFactory:
    """Return the maker of the decoder; it reads every level."""
    plain = segformer.build(settings)

    def make(channels: Sequence[int], num_classes: int) -> nn.Module:
        allspark = AllSpark(channels[-1], heads=settings.heads, dropout=settings.attention_dropout)
        return SparkedHead(plain(channels, num_classes), allspark)

    return make
