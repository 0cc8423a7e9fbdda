"""Segmentation networks: an encoder plugin and a decoder plugin, put together."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from zspl import plugins
from zspl.models.network import Encoder, HeadFactory, SegmentationNetwork
from zspl.models.pretrained import HeadSettings, load_head_file
from zspl.sections import plugin_settings

__all__ = ["Encoder", "HeadFactory", "SegmentationNetwork", "build"]


def build(
    *,
    backbone: Mapping[str, Any],
    head: Mapping[str, Any],
    num_classes: int,
    pretrained: bool | str | None = True,
) -> SegmentationNetwork:
    """Build a network that takes images of any size.

    Args:
        backbone: `name` of a plugin in zspl/models/backbones and its settings.
        head: `name` of a plugin in zspl/models/heads and its settings.
        num_classes: Output channels, background included.
        pretrained: True loads what the `pretrained` settings of both name; False or None starts
            from random weights (a checkpoint will replace them); text replaces the backbone's
            setting, and the head starts from random weights.

    Raises:
        SettingsError: if a plugin is unknown or one of its settings is wrong.
        WeightsError: if the pretrained weights are missing, damaged or of another network.
    """
    changed = {} if pretrained is True else {"pretrained": pretrained or None}
    plugin, settings = _plugin("zspl.models.backbones", {**backbone, **changed})
    encoder: Encoder = plugin.build(settings)
    plugin, settings = _plugin("zspl.models.heads", head)
    make_head: HeadFactory = plugin.build(settings)
    decoder = make_head(encoder.channels, num_classes)
    if pretrained is True and isinstance(settings, HeadSettings) and settings.pretrained:
        load_head_file(decoder, settings.pretrained, sha256=settings.sha256)
    return SegmentationNetwork(encoder.module, decoder)


def _plugin(package: str, choice: Mapping[str, Any]) -> tuple[ModuleType, BaseModel]:
    values = dict(choice)
    name = values.pop("name")
    return plugins.load(package, name), plugin_settings(package, name, values)
