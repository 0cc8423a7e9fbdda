"""Building a timm network that returns feature maps."""

from collections.abc import Mapping
from typing import Any

import timm
from pydantic import Field
from torch import nn

from zspl.models.network import Encoder
from zspl.models.pretrained import create_from_hub, is_file, load_backbone_file
from zspl.settings import Section


class TimmSettings(Section):
    """Settings of every backbone that comes from timm."""

    pretrained: str | None = Field(
        default=None, description="null, a timm tag such as gluon_in1k, or a checkpoint file."
    )
    sha256: str | None = Field(default=None, description="Checksum of a checkpoint file, in hex.")


def build_timm(name: str, settings: TimmSettings, options: Mapping[str, Any]) -> Encoder:
    """Build timm's network `name` as an encoder with the levels that `options` chooses.

    Raises:
        WeightsError: if the pretrained weights cannot be had or do not fit.
    """
    tag = settings.pretrained
    from_hub = tag is not None and not is_file(tag)
    model = f"{name}.{tag}" if from_hub else name

    def create() -> nn.Module:
        module: nn.Module = timm.create_model(
            model, pretrained=from_hub, features_only=True, **options
        )
        return module

    module: Any = create_from_hub(create, what=f"backbone {model}") if from_hub else create()
    if tag is not None and not from_hub:
        load_backbone_file(module, tag, sha256=settings.sha256)
    return Encoder(module=module, channels=tuple(module.feature_info.channels()))
