"""SAM's automatic masks: a grid of points, three masks each, of which the good ones stay.

The order of filters and suppressions is that of `SamAutomaticMaskGenerator`; scores are known
before a mask is drawn, and kept masks are packed bits until the last suppression is done.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from zspl.proposals._sam_decoder import Decoder
from zspl.proposals._sam_encoder import encode
from zspl.proposals._sam_masks import Canvas, Cutoffs
from zspl.proposals._sam_regions import mended
from zspl.proposals._sam_segments import Segments
from zspl.settings import Section

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Pixels = UInt8[np.ndarray, "_ _ 3"]  # of any size each: H W would have to be the same for all

# A CPU takes one real image and one prompt at a time: more run no faster there, and so what an
# image gives does not depend on its neighbours. A small model fills as many tokens with more.
_TOKENS_AT_ONCE = 4096
_IMAGES_AT_ONCE = 8  # in one pass of the encoder on a GPU


class GeneratorSettings(Section):
    """Every knob of `SamAutomaticMaskGenerator`, with the library's defaults."""

    points_per_side: int = Field(32, gt=0)
    points_per_batch: int = Field(
        64, gt=0, description="At most so many run at once; a CPU runs fewer."
    )
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = Field(0.7, ge=0, le=1)
    crop_n_layers: int = Field(0, ge=0)
    crop_nms_thresh: float = Field(0.7, ge=0, le=1)
    crop_overlap_ratio: float = Field(512 / 1500, ge=0, lt=1)
    crop_n_points_downscale_factor: int = Field(1, gt=0)
    min_mask_region_area: int = Field(0, ge=0, description="In pixels; 0: masks stay as drawn.")

    @model_validator(mode="after")
    def _every_layer_has_points(self) -> "GeneratorSettings":
        if self.points_per_side < self.crop_n_points_downscale_factor**self.crop_n_layers:
            raise ValueError(
                f"crop_n_points_downscale_factor {self.crop_n_points_downscale_factor} leaves no "
                f"point in layer {self.crop_n_layers}; raise points_per_side"
            )
        return self

    def knobs(self) -> dict[str, Any]:
        """Return the arguments of `SamAutomaticMaskGenerator`."""
        return self.model_dump(include=set(GeneratorSettings.model_fields))


class _View(NamedTuple):
    """A crop of one of the images: XYXY, and the layer it belongs to."""

    image: int
    box: tuple[int, int, int, int]
    layer: int

    @property
    def size(self) -> tuple[int, int]:
        left, top, right, bottom = self.box
        return bottom - top, right - left


class Generator:
    """Makes the masks of images with a `Sam` whose weights it reads, on the model's device.

    Args:
        sam: The model, ready for inference. With another `dtype` its encoder is converted.
        settings: The knobs of the generator.
        dtype: Precision of the encoder and of the decoder's image tokens. Scores, logits and
            cutoffs are always float32.
    """

    def __init__(
        self, sam: "Sam", settings: GeneratorSettings, dtype: torch.dtype = torch.float32
    ) -> None:
        from segment_anything.utils.amg import build_all_layer_point_grids

        self._sam = sam
        self._settings = settings
        self._dtype = dtype
        sam.image_encoder.to(dtype)
        self.decoder = Decoder(sam, dtype)
        self._grids: list[npt.NDArray[np.float64]] = build_all_layer_point_grids(
            settings.points_per_side,
            settings.crop_n_layers,
            settings.crop_n_points_downscale_factor,
        )
        self._cutoffs = Cutoffs(
            mask=float(sam.mask_threshold),
            offset=settings.stability_score_offset,
            least=settings.stability_score_thresh,
        )
        device, rows_and_columns = sam.device, self.decoder.grid
        tokens = rows_and_columns[0] * rows_and_columns[1]
        fitting = max(1, _TOKENS_AT_ONCE // tokens)
        on_cpu = device.type == "cpu"
        self._images_at_once = 1 if on_cpu else _IMAGES_AT_ONCE
        self._prompts_at_once = min(
            settings.points_per_batch, fitting if on_cpu else settings.points_per_batch
        )

    @torch.no_grad()
    def generate(self, images: Sequence[Pixels]) -> list[Segments]:
        """Return the masks of RGB images of any sizes, by descending score."""
        views = [view for k, image in enumerate(images) for view in self._views(k, image)]
        found: list[list[tuple[_View, Segments]]] = [[] for _ in images]
        for view, embedding in self._embedded(images, views):
            size = (images[view.image].shape[0], images[view.image].shape[1])
            found[view.image].append((view, self._of_view(view, embedding, size)))
        return [
            self._merged(parts, (image.shape[0], image.shape[1]))
            for parts, image in zip(found, images, strict=True)
        ]

    def _views(self, index: int, image: Pixels) -> Iterator[_View]:
        from segment_anything.utils.amg import generate_crop_boxes

        boxes, layers = generate_crop_boxes(
            image.shape[:2], self._settings.crop_n_layers, self._settings.crop_overlap_ratio
        )
        for (left, top, right, bottom), layer in zip(boxes, layers, strict=True):
            if left < right and top < bottom:  # an image of one pixel has empty crops
                yield _View(index, (left, top, right, bottom), layer)

    def _embedded(
        self, images: Sequence[Pixels], views: Sequence[_View]
    ) -> Iterator[tuple[_View, Float[Tensor, "C h w"]]]:
        from segment_anything.modeling import ImageEncoderViT

        encoder = self._sam.image_encoder
        for begin in range(0, len(views), self._images_at_once):
            group = views[begin : begin + self._images_at_once]
            seen = torch.stack([self._seen(images[view.image], view) for view in group])
            seen = seen.to(self._dtype)
            if isinstance(encoder, ImageEncoderViT):
                embeddings = encode(encoder, seen)
            else:
                embeddings = encoder(seen)
            yield from zip(group, embeddings, strict=True)

    def _seen(self, image: Pixels, view: _View) -> Float[Tensor, "3 Y X"]:
        """Return a crop as the encoder sees it: resized, normalised and padded to a square."""
        left, top, right, bottom = view.box
        height, width = self._seen_size(view)
        crop = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
        pixels = np.array(crop.resize((width, height), Image.Resampling.BILINEAR))
        if self._sam.image_format != "RGB":
            pixels = pixels[..., ::-1].copy()
        seen: Tensor = self._sam.preprocess(
            torch.from_numpy(pixels).to(self._sam.device).permute(2, 0, 1)
        )
        return seen

    def _seen_size(self, view: _View) -> tuple[int, int]:
        side = self._sam.image_encoder.img_size
        scale = side * 1.0 / max(view.size)
        height, width = (max(1, int(length * scale + 0.5)) for length in view.size)
        return height, width

    def _of_view(
        self, view: _View, embedding: Float[Tensor, "C h w"], size: tuple[int, int]
    ) -> Segments:
        """Return a crop's masks in the image's coordinates, without duplicates among them."""
        decoder, rows_and_columns = self.decoder, self.decoder.grid
        canvas = Canvas(
            (rows_and_columns[0] * decoder.scale, rows_and_columns[1] * decoder.scale),
            side=self._sam.image_encoder.img_size,
            seen=self._seen_size(view),
            size=view.size,
            device=embedding.device,
        )
        found = self._useful(self._drawn(canvas, embedding, self._prompts(view)), view, size)
        found = found.suppressed(found.scores, self._settings.box_nms_thresh)
        return found.moved(down=view.box[1], right=view.box[0])

    def _drawn(
        self, canvas: Canvas, embedding: Float[Tensor, "C h w"], prompts: Float[Tensor, "N P C"]
    ) -> Segments:
        """Draw the masks whose scores are good enough, in the order of their prompts."""
        scored: list[Tensor] = []
        rows = -(-canvas.used_rows // self.decoder.scale)
        candidates = self._candidates(embedding, prompts, rows, scored)
        index, parts, seen = [], [], 0
        for logits in _gathered(candidates, canvas.at_once):
            part = canvas.draw(logits, self._cutoffs)
            index.append(seen + part.index)
            parts.append(part)
            seen += len(logits)
        scores = torch.cat(scored)
        scores = scores[self._wanted(scores)].cpu()
        return Segments.joined(
            [
                Segments(
                    scores=scores[which],
                    stability=part.stability,
                    boxes=part.boxes,
                    outlines=part.outlines,
                )
                for which, part in zip(index, parts, strict=True)
            ]
        )

    def _candidates(
        self,
        embedding: Float[Tensor, "C h w"],
        prompts: Float[Tensor, "N P C"],
        rows: int,
        scored: list[Tensor],
    ) -> Iterator[Float[Tensor, "n y x"]]:
        """Give the logits of masks whose scores are good enough; all scores go to `scored`."""
        scene = self.decoder.look_at(embedding)
        for some in torch.split(prompts, self._prompts_at_once):
            decoded = self.decoder.decode(scene, some)
            scored.append(decoded.scores)
            wanted = self._wanted(decoded.scores)
            chosen = wanted.any(dim=1).nonzero().flatten()
            if len(chosen):
                yield self.decoder.draw(decoded, chosen, rows=rows)[wanted[chosen]]

    def _prompts(self, view: _View) -> Float[Tensor, "N P C"]:
        """Embed the points of a crop's grid."""
        (height, width), (seen_height, seen_width) = view.size, self._seen_size(view)
        points = self._grids[view.layer] * np.array([[width, height]])
        points = points * np.array([[seen_width / width, seen_height / height]])
        coordinates = torch.as_tensor(points, device=self._sam.device)[:, None]
        labels = torch.ones(coordinates.shape[:2], dtype=torch.int, device=self._sam.device)
        prompts: Tensor
        prompts, _ = self._sam.prompt_encoder((coordinates, labels), None, None)
        return prompts

    def _wanted(self, scores: Float[Tensor, "B M"]) -> Tensor:
        least = self._settings.pred_iou_thresh
        return scores > least if least > 0 else torch.ones_like(scores, dtype=torch.bool)

    def _useful(self, segments: Segments, view: _View, size: tuple[int, int]) -> Segments:
        """Drop unstable masks, and those cut off by the crop where the image goes on."""
        from segment_anything.utils.amg import is_box_near_crop_edge

        height, width = size
        kept = ~is_box_near_crop_edge(segments.boxes, list(view.box), [0, 0, width, height])
        if self._cutoffs.least > 0:
            kept &= segments.stability >= self._cutoffs.least
        return segments.taken(kept.nonzero().flatten())

    def _merged(self, parts: Sequence[tuple[_View, Segments]], size: tuple[int, int]) -> Segments:
        settings = self._settings
        found = Segments.joined([segments for _, segments in parts])
        if settings.crop_n_layers > 0:
            areas = [math.prod(view.size) for view, segments in parts for _ in segments.outlines]
            smallest_first = 1 / torch.tensor(areas, dtype=torch.int64)
            found = found.suppressed(smallest_first, settings.crop_nms_thresh)
        if settings.min_mask_region_area > 0:
            found = mended(
                found,
                size,
                least_area=settings.min_mask_region_area,
                overlap=max(settings.box_nms_thresh, settings.crop_nms_thresh),
            )
        return found.taken(found.scores.argsort(descending=True, stable=True))


def _gathered(candidates: Iterator[Tensor], at_once: int) -> Iterator[Float[Tensor, "n y x"]]:
    """Join candidates and give them `at_once` together; the last may be fewer."""
    waiting: list[Tensor] = []
    for candidate in candidates:
        waiting.append(candidate)
        if sum(map(len, waiting)) >= at_once:
            *full, rest = torch.split(torch.cat(waiting), at_once)
            yield from full
            waiting = [rest]
    if waiting:
        yield torch.cat(waiting)
