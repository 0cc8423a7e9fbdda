"""Any network of timm that returns feature maps of strides 4, 8, ..., by its name."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from zspl.errors import SettingsError, suggestion
from zspl.models.backbones._timm import TimmSettings, create_timm
from zspl.models.network import Encoder
from zspl.models.pretrained import load_backbone_file

FINEST = 4
PROBES = ((64, 96), (65, 97))
"""Sizes of the images that every network must take; at the first one its strides are checked."""

DEPTH = 3
"""Components of a name that tell whether timm's extractor has kept that part of a network."""

REFUSALS = (RuntimeError, TypeError, AssertionError, ValueError, AttributeError, LookupError)
"""What timm raises for an option or an image that a network does not take."""


class Settings(TimmSettings):
    """Settings of the encoder."""

    model: str = Field(
        pattern=r"^\w+$",
        description="A name of timm.list_models() such as convnext_tiny; a tag is `pretrained`.",
    )
    output_stride: Literal[8, 16, 32] | None = Field(
        default=None, description="Of the coarsest level, or null for the network's own."
    )


class Levels(nn.Module):
    """A feature extractor of timm whose levels finer than stride 4 are dropped."""

    def __init__(self, network: nn.Module, *, dropped: int) -> None:
        super().__init__()
        self.network = network
        self.dropped = dropped

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return one feature map per level, finest first."""
        return list(self.network(images))[self.dropped :]


def build(settings: Settings) -> Encoder:
    """Build the encoder: every level of stride 4 and more.

    Raises:
        SettingsError: if timm does not know the network, or it has no feature maps, no stride 4,
            or takes images of one size only.
        WeightsError: if the pretrained weights cannot be had or do not fit.
    """
    network = _create(settings)
    strides = network.feature_info.reduction()
    if FINEST not in strides:
        raise _unfit(settings, f"its levels have the strides {strides}, none of them is {FINEST}")
    first = strides.index(FINEST)
    module = Levels(network, dropped=first)
    channels = tuple(network.feature_info.channels()[first:])
    _probe(module, settings, list(zip(channels, strides[first:], strict=True)))
    if settings.file is not None:
        load_backbone_file(module, settings.file, sha256=settings.sha256, placed=_placed(module))
    return Encoder(module=module, channels=channels)


def _placed(module: Levels) -> Callable[[str], str]:
    """Return what gives the module's name of a key in a file of timm, or the key if it has none.

    timm's extractors join the names of a sequence and of its members, or add one in front.
    """
    known = {".".join(name.split(".")[1:DEPTH]) for name in module.state_dict()}

    def place(key: str) -> str:
        for name in (key, key.replace(".", "_", 1), f"model.{key}"):
            if ".".join(name.split(".")[: DEPTH - 1]) in known:
                return f"network.{name}"
        return key

    return place


def _create(settings: Settings) -> Any:  # noqa: ANN401 - timm has no types
    if not timm.is_model(settings.model):
        near = suggestion(settings.model, timm.list_models())
        hint = near if near.startswith("Did") else "timm.list_models() shows them."
        raise SettingsError(f"backbone timm_features: timm has no model {settings.model!r}. {hint}")
    stride = settings.output_stride
    options = {"features_only": True, **({} if stride is None else {"output_stride": stride})}
    try:
        return create_timm(settings.model, settings, options)
    except REFUSALS as error:
        raise _unfit(settings, f"timm does not build it with {options} ({_line(error)})") from error


def _probe(module: Levels, settings: Settings, levels: Sequence[tuple[int, int]]) -> None:
    """Run two images through it; `levels` are the channels and the stride of each level."""
    module.eval()
    device = next(module.parameters()).device
    for size in PROBES:
        try:
            with torch.no_grad():
                found = module(torch.zeros(1, 3, *size, device=device))
        except REFUSALS as error:
            reason = f"it does not take images of {size[0]} x {size[1]} pixels ({_line(error)})"
            raise _unfit(settings, reason) from error
        for level, (channels, stride) in zip(found, levels, strict=True):
            expected = (1, channels, *(side // stride for side in size))
            if size == PROBES[0] and level.shape != expected:
                reason = f"a level has the shape {tuple(level.shape)}, expected {expected}"
                raise _unfit(settings, reason)
    module.train()


def _unfit(settings: Settings, reason: str) -> SettingsError:
    return SettingsError(
        f"backbone timm_features: {settings.model} does not fit: {reason}; choose a network that "
        "takes images of any size and has levels of stride 4, 8, ..., such as convnext_tiny"
    )


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
