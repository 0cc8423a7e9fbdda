"""Loading an open_clip model, and the part of an encoder that all of them share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import Field, field_validator, model_validator
from torch import Tensor
from torch.nn import functional as F

from zspl.errors import SettingsError, WeightsError, suggestion
from zspl.features import _open_clip_files, _vit
from zspl.io import devices, weights
from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings
from zspl.settings import Section

if TYPE_CHECKING:
    from open_clip import CLIP

Tokens = Callable[["CLIP", Tensor], Tensor]
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
    templates: Literal["single", "imagenet80"] = Field(
        "single",
        description="single: `prompt` alone; imagenet80: the mean over open_clip's 80 ImageNet "
        "templates, and `prompt` is not used.",
    )
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "float32",
        description="Precision of the image tower; auto: half of it on a GPU. Text is float32.",
    )

    @field_validator("prompt")
    @classmethod
    def _has_one_gap(cls, prompt: str) -> str:
        if prompt.count("{}") != 1:
            raise ValueError(f"needs exactly one {{}} for the class name, got {prompt!r}")
        return prompt

    @model_validator(mode="after")
    def _tiny_knows_the_templates(self) -> "ClipSettings":
        if self.model == "tiny" and self.templates != "single":
            raise ValueError(
                f"templates is {self.templates} but the tiny model knows few words beside its "
                "class names; set templates: single, or another model"
            )
        return self


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

    An encoder that looks at segments overrides `sees_segments` and `tokens`.

    Args:
        settings: Model, input size, precision and prompt.
        tokens: Maps (model, normalised images Float[B 3 H W]) to tokens Float[B 1+hw D].

    Raises:
        SettingsError: if open_clip has no such model or weights, the image size does not fit, or
            the device does not compute in the precision.
        WeightsError: if the weights cannot be had, or are of a tower with unknown parts.
    """

    sees_segments: bool = False

    def __init__(self, settings: ClipSettings, tokens: Tokens = _vit.clip_tokens) -> None:
        self._settings = settings
        self._tokens = tokens
        self._dtype = devices.dtype(settings.dtype)
        self._clip = load(settings)
        self._side = settings.image_size or self._clip.side
        self._patch = _patch_size(self._clip.model, settings.model, self._side)
        self.device = devices.chosen()
        self._clip.model.to(self.device)
        _vit.check_forward(self._clip.model, settings.model)
        self._clip.model.visual.to(self._dtype)
        self._texts: dict[tuple[str, ...], TextEmbeddings] = {}

    @property
    def model(self) -> "CLIP":
        """The open_clip model, in evaluation mode; its image tower has the precision set."""
        return self._clip.model

    def dense(self, image: Image.Image, proposals: SegmentProposals | None = None) -> DenseFeatures:
        """Embed every cell of an RGB image; the vectors are not normalised.

        Raises:
            ValueError: if it sees segments and gets no proposals.
        """
        return self.dense_batch([image], None if proposals is None else [proposals])[0]

    @torch.inference_mode()
    def dense_batch(
        self,
        images: Sequence[Image.Image],
        proposals: Sequence[SegmentProposals] | None = None,
    ) -> list[DenseFeatures]:
        """Embed several images in one pass of the network; see `dense`."""
        if self.sees_segments and proposals is None:
            raise ValueError("this encoder looks at segments: pass the proposals of every image")
        if not images:
            return []
        pixels = torch.stack([self.pixels(image) for image in images])
        tokens = self.tokens(pixels.to(self.device, self._dtype), proposals)[:, 1:]
        side = self._side // self._patch
        grids = tokens.float().transpose(1, 2).reshape(len(images), -1, side, side).cpu()
        return [
            DenseFeatures(grid=grid.contiguous(), image_size=(image.height, image.width))
            for grid, image in zip(grids, images, strict=True)
        ]

    def tokens(
        self,
        pixels: Float[Tensor, "B 3 H W"],
        proposals: Sequence[SegmentProposals] | None,  # noqa: ARG002 - for those that see segments
    ) -> Float[Tensor, "B N D"]:
        """Map normalised images on the device to tokens, CLS first, patches row by row."""
        return self._tokens(self._clip.model, pixels)

    @torch.inference_mode()
    def text(self, names: Sequence[str]) -> TextEmbeddings:
        """Embed class names through the prompt, one L2-normalised vector each.

        The same names are embedded once.

        Raises:
            WeightsError: if the tiny model does not know a word.
        """
        key = tuple(names)
        if key not in self._texts:
            vectors = self._text_vectors(key).float().cpu()
            self._texts[key] = TextEmbeddings(vectors=vectors, class_names=key)
        return self._texts[key]

    def _text_vectors(self, names: tuple[str, ...]) -> Float[Tensor, "P D"]:
        if self._settings.templates == "single":
            return self._encode([self._settings.prompt.replace("{}", name) for name in names])
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        each = [self._encode([fill(name) for fill in OPENAI_IMAGENET_TEMPLATES]) for name in names]
        return F.normalize(torch.stack(each).mean(dim=1), dim=-1)

    def _encode(self, texts: list[str]) -> Float[Tensor, "P D"]:
        ids = self._clip.tokenizer(texts).to(self.device)
        vectors: Tensor = self._clip.model.encode_text(ids, normalize=True)
        return vectors

    def pixels(self, image: Image.Image, side: int | None = None) -> Float[Tensor, "3 H W"]:
        """Resize to a square (bicubic, aspect ratio not kept; null: the input) and normalise."""
        side = side or self._side
        resized = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
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
    _check_tower(name)
    statistics: dict[str, Any] = {}
    if Path(tag).suffix in _FILE_SUFFIXES:
        path = weights.resolve(tag, sha256=settings.sha256)
    else:
        _check_tag(name, tag)
        path = _open_clip_files.entry(name, tag).obtain()
        statistics = open_clip.get_pretrained_cfg(name, tag) or {}
    try:
        model = open_clip.create_model(name, pretrained=str(path), device="cpu")
    except Exception as error:  # open_clip, torch and the hub's client raise many kinds
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"open_clip {name} {tag}: {path} could not be loaded ({reason}); fetch it again, "
            "or name a checkpoint that fits as `pretrained`"
        ) from error
    model.eval().requires_grad_(requires_grad=False)
    statistics = statistics or getattr(model.visual, "preprocess_cfg", {})
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


def _check_tower(name: str) -> None:
    """Refuse a model whose image tower is no plain ViT before its weights are downloaded."""
    import open_clip

    vision: dict[str, Any] = (open_clip.get_model_config(name) or {}).get("vision_cfg", {})
    foreign = vision.get("timm_model_name") or vision.get("attentional_pool")
    if foreign or not isinstance(vision.get("layers"), int):
        raise SettingsError(_no_plain_vit(name))


def _no_plain_vit(name: str) -> str:
    return (
        f"embed: the image tower of {name} is no plain CLIP ViT, which dense features need; "
        "use a model such as ViT-B-16-quickgelu, ViT-L-14-quickgelu or ViT-H-14"
    )


def _patch_size(clip: "CLIP", name: str, side: int) -> int:
    visual = clip.visual
    plain = hasattr(visual, "conv1") and hasattr(visual, "class_embedding")
    if not plain or visual.attn_pool is not None or len(set(visual.patch_size)) > 1:
        raise SettingsError(_no_plain_vit(name))
    patch = int(visual.patch_size[0])
    if side % patch:
        raise SettingsError(
            f"embed: image_size is {side}, not a multiple of the {patch} pixels of {name}'s patch"
        )
    return patch
