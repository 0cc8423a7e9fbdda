"""Loading an open_clip model, and the part of an encoder that clip and gem share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import Field, field_validator
from torch import Tensor

from zspl.errors import SettingsError, WeightsError, suggestion
from zspl.io import devices, weights
from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings
from zspl.settings import Section

if TYPE_CHECKING:
    from open_clip import CLIP

_FILE_SUFFIXES = {".pt", ".pth", ".bin", ".safetensors"}
_OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
_OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipSettings(Section):
    """Which CLIP, how images reach it, and the prompt."""

    model: str = Field("ViT-B-16-quickgelu", description="An open_clip model name, or tiny.")
    pretrained: str = Field(
        "openai",
        description="An open_clip tag, or a checkpoint file below ZSPL_WEIGHTS; tiny ignores it.",
    )
    sha256: str | None = Field(None, description="Of the checkpoint file.")
    image_size: int | None = Field(
        None,
        gt=0,
        description="Side of the square every image is resized to, in pixels; null: GEM's 448, "
        "or what the tiny model was made for.",
    )
    prompt: str = Field("a photo of a {}", description="The text of a class; {} is its name.")

    @field_validator("prompt")
    @classmethod
    def _has_one_gap(cls, prompt: str) -> str:
        if prompt.count("{}") != 1:
            raise ValueError(f"needs exactly one {{}} for the class name, got {prompt!r}")
        return prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedClip:
    """An open_clip model with its tokenizer and pixel statistics (for pixels in [0, 1]).

    `side` is the input size in pixels for settings that name none.
    """

    model: "CLIP"
    tokenizer: Callable[[list[str]], Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    side: int = 448


class ClipEncoder:
    """Turns images and class names into the joint space of one CLIP.

    Args:
        settings: Model, input size and prompt.
        tokens: Maps (model, normalised images Float[B 3 H W]) to tokens Float[B 1+hw D].
    """

    def __init__(self, settings: ClipSettings, tokens: Callable[["CLIP", Tensor], Tensor]) -> None:
        self._settings = settings
        self._tokens = tokens
        self._clip = load(settings)
        self._side = settings.image_size or self._clip.side
        self._patch = _patch_size(self._clip.model, settings.model, self._side)
        self.device = devices.chosen()
        self._clip.model.to(self.device)

    @property
    def model(self) -> "CLIP":
        """The open_clip model, in float32 and evaluation mode."""
        return self._clip.model

    sees_segments = False

    def dense(self, image: Image.Image, proposals: SegmentProposals | None = None) -> DenseFeatures:
        """Embed every cell of an RGB image; the vectors are not normalised."""
        return self.dense_batch([image], None if proposals is None else [proposals])[0]

    @torch.inference_mode()
    def dense_batch(
        self,
        images: Sequence[Image.Image],
        proposals: Sequence[SegmentProposals] | None = None,  # noqa: ARG002 - of the protocol
    ) -> list[DenseFeatures]:
        """Embed several images in one pass; proposals are not looked at."""
        pixels = torch.stack([self.pixels(image) for image in images]).to(self.device)
        tokens = self._tokens(self._clip.model, pixels)[:, 1:]
        side = self._side // self._patch
        grids = tokens.transpose(1, 2).reshape(len(images), -1, side, side).cpu()
        return [
            DenseFeatures(grid=grid.contiguous(), image_size=(image.height, image.width))
            for grid, image in zip(grids, images, strict=True)
        ]

    @torch.inference_mode()
    def text(self, names: Sequence[str]) -> TextEmbeddings:
        """Embed class names through the prompt, one L2-normalised vector each.

        Raises:
            WeightsError: if the tiny model does not know a word.
        """
        ids = self._clip.tokenizer([self._settings.prompt.replace("{}", name) for name in names])
        vectors = self._clip.model.encode_text(ids.to(self.device), normalize=True)
        return TextEmbeddings(vectors=vectors.float().cpu(), class_names=tuple(names))

    def pixels(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """Resize to the square input (bicubic, aspect ratio not kept) and normalise."""
        resized = image.convert("RGB").resize((self._side, self._side), Image.Resampling.BICUBIC)
        values = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
        mean, std = torch.tensor(self._clip.mean), torch.tensor(self._clip.std)
        return (values - mean[:, None, None]) / std[:, None, None]


def load(settings: ClipSettings) -> LoadedClip:
    """Load the model that `settings` name, in float32 and evaluation mode.

    Raises:
        SettingsError: if open_clip has no such model or tag, or the activation does not fit.
        WeightsError: if the weights cannot be had or do not fit.
    """
    if settings.model == "tiny":
        from zspl.toyworld.load import load_clip

        model, tokenizer, mean, std, side = load_clip()
        return LoadedClip(model=model.eval(), tokenizer=tokenizer, mean=mean, std=std, side=side)
    return _load_open_clip(settings)


def _load_open_clip(settings: ClipSettings) -> LoadedClip:
    import open_clip

    name, tag = settings.model, settings.pretrained
    known = open_clip.list_models()
    if name not in known:
        raise SettingsError(f"embed: open_clip has no model {name!r}. {suggestion(name, known)}")
    source = tag
    if Path(tag).suffix in _FILE_SUFFIXES:
        source = str(weights.resolve(tag, sha256=settings.sha256))
    else:
        _check_tag(name, tag)
    try:
        model = open_clip.create_model(name, pretrained=source, device="cpu")
    except Exception as error:  # open_clip, torch and the hub's client raise many kinds
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"open_clip {name} {tag}: weights could not be loaded ({reason}); check the network, "
            "or put a checkpoint below ZSPL_WEIGHTS and name it as `pretrained`"
        ) from error
    model.eval().requires_grad_(requires_grad=False)
    statistics: dict[str, Any] = getattr(model.visual, "preprocess_cfg", {})
    mean = tuple(statistics.get("mean", _OPENAI_MEAN))
    std = tuple(statistics.get("std", _OPENAI_STD))
    return LoadedClip(model=model, tokenizer=open_clip.get_tokenizer(name), mean=mean, std=std)


def _check_tag(name: str, tag: str) -> None:
    """Refuse an unknown tag, and one that was trained with another activation.

    open_clip 3 only warns of the latter, and the features are then silently wrong.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise SettingsError(
            f"embed: open_clip model {name} has no weights {tag!r}. {suggestion(tag, tags)} "
            f"A file needs one of the endings {', '.join(sorted(_FILE_SUFFIXES))}."
        )
    trained = bool((open_clip.get_pretrained_cfg(name, tag) or {}).get("quick_gelu", False))
    built = bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))
    if trained != built:
        plain = name.removesuffix("-quickgelu")
        raise SettingsError(
            f"embed: weights {tag!r} were trained {'with' if trained else 'without'} QuickGELU but "
            f"model {name} is built {'with' if built else 'without'}; "
            f"set model: {plain + '-quickgelu' if trained else plain}"
        )


def _patch_size(clip: "CLIP", name: str, side: int) -> int:
    patch = int(clip.visual.conv1.weight.shape[-1]) if hasattr(clip.visual, "conv1") else 0
    if not patch or not hasattr(clip.visual, "class_embedding"):
        raise SettingsError(f"embed: {name} is no plain ViT; use a ViT-* model")
    if side % patch:
        raise SettingsError(
            f"embed: image_size is {side}, not a multiple of the {patch} pixels of {name}'s patch"
        )
    return patch
