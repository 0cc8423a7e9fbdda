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
    """Settings of every backbone whose weights a library publishes."""

    pretrained: str | None = Field(
        default=None,
        description="null, the tag of published weights such as gluon_in1k, or a checkpoint file.",
    )
    sha256: str | None = Field(default=None, description="Checksum of a checkpoint file, in hex.")

    @property
    def file(self) -> str | None:
        """The checkpoint file that `pretrained` names, if it is one."""
        named = self.pretrained is not None and is_file(self.pretrained)
        return self.pretrained if named else None


def create_timm(name: str, settings: TimmSettings, options: Mapping[str, Any]) -> nn.Module:
    """Create timm's network `name`, with timm's weights if `pretrained` is a tag.

    Raises:
        WeightsError: if those weights cannot be had.
    """
    tag = settings.pretrained if settings.file is None else None

    def create() -> nn.Module:
        model = name if tag is None else f"{name}.{tag}"
        module: nn.Module = timm.create_model(model, pretrained=tag is not None, **options)
        return module

    return create() if tag is None else create_from_hub(create, what=f"backbone {name}.{tag}")


def build_timm(name: str, settings: TimmSettings, options: Mapping[str, Any]) -> Encoder:
    """Build timm's network `name` as an encoder with the levels that `options` chooses.

    Raises:
        WeightsError: if the pretrained weights cannot be had or do not fit.
    """
    module: Any = create_timm(name, settings, {"features_only": True, **options})
    if settings.file is not None:
        load_backbone_file(module, settings.file, sha256=settings.sha256)
    return Encoder(module=module, channels=tuple(module.feature_info.channels()))
