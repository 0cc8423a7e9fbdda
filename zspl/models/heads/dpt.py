"""The dense prediction decoder (Ranftl et al. 2021) as UniMatch V2 builds it (methods.md 4.5)."""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.errors import SettingsError
from zspl.models.network import HeadFactory
from zspl.models.pretrained import HeadSettings

LEVELS = 4


class Settings(HeadSettings):
    """Settings of the decoder; the defaults are those for DINOv2-S.

    UniMatch V2 takes width 128 and level_widths 96, 192, 384, 768 for DINOv2-B.
    """

    width: int = Field(default=64, gt=0, description="Channels of the fusion.")
    level_widths: tuple[int, int, int, int] = Field(
        default=(48, 96, 192, 384), description="Channels of the levels, finest first."
    )
    patch: int = Field(default=14, gt=0, description="Pixels per cell of the encoder's levels.")


def resize(x: Float[Tensor, "B C h w"], size: Sequence[int]) -> Float[Tensor, "B C h2 w2"]:
    """Resize bilinearly with aligned corners, as UniMatch V2's decoder does everywhere."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """Two rectified 3x3 convolutions and a shortcut, without norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Return the unit's feature map."""
        residual: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return residual + x


class Fusion(nn.Module):
    """Adds one level to what comes from the coarser ones, and upsamples the sum."""

    def __init__(self, width: int, *, coarsest: bool) -> None:
        super().__init__()
        # The published code gives the coarsest level such a unit, too, and never calls it.
        self.level = None if coarsest else ResidualUnit(width)
        self.sum = ResidualUnit(width)
        self.project = nn.Conv2d(width, width, 1)

    def forward(
        self, level: Float[Tensor, "B C h w"], coarser: Tensor | None, size: tuple[int, int]
    ) -> Float[Tensor, "B C height width"]:
        """Return the fused map at `size`; `coarser` is Float[B C h w], None at the coarsest.

        Unlike the published code, the 1x1 convolution comes before the upsampling: both are
        linear and commute.
        """
        if self.level is not None and coarser is not None:
            level = coarser + self.level(level)
        return resize(self.project(self.sum(level)), size)


class DPTHead(nn.Module):
    """Makes a pyramid of four levels of one size and fuses it from coarse to fine."""

    def __init__(self, settings: Settings, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        if len(channels) != LEVELS:
            raise SettingsError(
                f"head dpt: reads {LEVELS} levels, the backbone returns {len(channels)}; choose "
                "the backbone dinov2 with four layers"
            )
        width, widths = settings.width, settings.level_widths
        self.patch = settings.patch
        self.projects = nn.ModuleList(
            nn.Conv2d(level, out, 1) for level, out in zip(channels, widths, strict=True)
        )
        self.resizes = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.reduces = nn.ModuleList(nn.Conv2d(w, width, 3, padding=1, bias=False) for w in widths)
        self.fusions = nn.ModuleList(Fusion(width, coarsest=k == LEVELS - 1) for k in range(LEVELS))
        self.smooth = nn.Conv2d(width, width, 3, padding=1)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(
        self, features: Sequence[Tensor], size: tuple[int, int]
    ) -> Float[Tensor, "B C height width"]:
        """Return class logits at `size` = (height, width).

        They are upsampled to the pixels that the encoder's cells cover first, and from there to
        `size` if that is another one.

        Raises:
            SettingsError: if the levels have different sizes.
        """
        grid = features[0].shape[-2:]
        if any(level.shape[-2:] != grid for level in features):
            raise SettingsError(
                "head dpt: needs levels of one size, as of the backbone dinov2, got "
                f"{[tuple(level.shape[-2:]) for level in features]}; choose another head"
            )
        logits = resize(self._decode(features), [self.patch * cells for cells in grid])
        return logits if logits.shape[-2:] == size else resize(logits, size)

    def _decode(self, features: Sequence[Tensor]) -> Tensor:
        levels = [
            reduce(change(project(feature)))
            for feature, project, change, reduce in zip(
                features, self.projects, self.resizes, self.reduces, strict=True
            )
        ]
        height, width = levels[0].shape[-2:]
        sizes = [(2 * height, 2 * width), *(level.shape[-2:] for level in levels[:-1])]
        x: Tensor | None = None
        for fusion, level, size in reversed(list(zip(self.fusions, levels, sizes, strict=True))):
            x = fusion(level, x, size)
        logits: Tensor = self.classifier(F.relu(self.smooth(x)))
        return logits


def build(settings: Settings) -> HeadFactory:
    """Return the maker of the decoder; it reads four levels of one size."""
    return partial(DPTHead, settings)
