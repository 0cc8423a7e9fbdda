"""Plain CLIP: the last layer's patch tokens in the joint space, without any change."""

from zspl.features._open_clip import ClipEncoder, ClipSettings


class Settings(ClipSettings):
    """Settings of plain CLIP."""


def build(settings: Settings) -> ClipEncoder:
    """Return the encoder whose dense features are CLIP's own patch tokens.

    Raises:
        SettingsError: if open_clip has no such model or weights.
        WeightsError: if the weights cannot be had.
    """
    return ClipEncoder(settings)
