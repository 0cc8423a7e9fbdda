"""Segmentation networks: an encoder plugin and a decoder plugin, put together."""

from collections.abc import Mapping
from typing import Any

from zspl.models.network import Encoder, HeadFactory, SegmentationNetwork
from zspl.settings import build_plugin

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
        pretrained: True loads what the backbone's own `pretrained` setting names; False or
            None starts from random weights (a checkpoint will replace them); text replaces
            that setting.

    Raises:
        SettingsError: if a plugin is unknown or one of its settings is wrong.
        WeightsError: if the pretrained weights are missing, damaged or of another network.
    """
    changed = {} if pretrained is True else {"pretrained": pretrained or None}
    encoder: Encoder = _build("zspl.models.backbones", {**backbone, **changed})
    make_head: HeadFactory = _build("zspl.models.heads", head)
    return SegmentationNetwork(encoder.module, make_head(encoder.channels, num_classes))


def _build(package: str, choice: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the folder says what
    values = dict(choice)
    return build_plugin(package, values.pop("name"), values)
