"""Segment Anything with its own automatic mask generator: a grid of points, three masks each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field, model_validator

from zspl.errors import WeightsError
from zspl.io import devices, weights
from zspl.records import SegmentProposals
from zspl.settings import Section

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

_Mask = npt.NDArray[np.bool_]
_SITE = "https://dl.fbaipublicfiles.com/segment_anything/"


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    file: str
    sha256: str


# The digits in the official file names are the beginning of the md5, not of the sha256.
_OFFICIAL = {
    "vit_b": _Checkpoint(
        "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
    ),
    "vit_l": _Checkpoint(
        "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"
    ),
    "vit_h": _Checkpoint(
        "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
    ),
}


class Settings(Section):
    """The model and every knob of `SamAutomaticMaskGenerator`, with the library's defaults."""

    model: Literal["tiny", "vit_b", "vit_l", "vit_h"] = "vit_h"
    checkpoint: str | None = Field(
        None, description="A file below ZSPL_WEIGHTS; null: the official one, downloaded if absent."
    )
    sha256: str | None = Field(None, description="Of `checkpoint`.")
    max_side: int | None = Field(
        1024,
        gt=0,
        description="Larger images are shrunk to this side for mask generation; SAM itself sees "
        "1024 pixels. Unlike the library, whose memory grows with the image; null: as there.",
    )
    points_per_side: int = Field(32, gt=0)
    points_per_batch: int = Field(64, gt=0)
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = Field(0.7, ge=0, le=1)
    crop_n_layers: int = Field(0, ge=0)
    crop_nms_thresh: float = Field(0.7, ge=0, le=1)
    crop_overlap_ratio: float = Field(512 / 1500, ge=0, lt=1)
    crop_n_points_downscale_factor: int = Field(1, gt=0)
    min_mask_region_area: int = Field(0, ge=0, description="In pixels; above 0 needs OpenCV.")

    @model_validator(mode="after")
    def _checksum_has_a_file(self) -> "Settings":
        if self.sha256 is not None and self.checkpoint is None:
            raise ValueError("sha256 is of `checkpoint`; the official files have their own")
        if self.model == "tiny" and self.checkpoint is not None:
            raise ValueError("model tiny ships its weights; leave `checkpoint` null")
        return self

    def knobs(self) -> dict[str, Any]:
        """Return the arguments of `SamAutomaticMaskGenerator`."""
        return self.model_dump(exclude={"model", "checkpoint", "sha256", "max_side"})


class SamProposer:
    """Runs the automatic mask generator on one image at a time."""

    def __init__(self, sam: "Sam", settings: Settings) -> None:
        from segment_anything import SamAutomaticMaskGenerator

        self.device = devices.chosen()
        self._max_side = settings.max_side
        self._generator = SamAutomaticMaskGenerator(
            sam.to(self.device), **settings.knobs(), output_mode="binary_mask"
        )

    def propose(self, image: Image.Image) -> SegmentProposals:
        """Cut an RGB image into segments at its own size, by descending predicted IoU."""
        original = image.size
        seen = _shrunk(image.convert("RGB"), self._max_side)
        found = self._generator.generate(np.array(seen))
        found.sort(key=lambda mask: -mask["predicted_iou"])
        masks = [_enlarged(mask["segmentation"], original) for mask in found]
        width, height = original
        stacked = np.stack(masks) if masks else np.zeros((0, height, width), bool)
        return SegmentProposals(
            masks=torch.from_numpy(stacked),
            predicted_iou=torch.tensor([float(mask["predicted_iou"]) for mask in found]),
            stability_score=torch.tensor([float(mask["stability_score"]) for mask in found]),
        )

    def propose_batch(self, images: Sequence[Image.Image]) -> list[SegmentProposals]:
        """Cut several images, one after the other."""
        return [self.propose(image) for image in images]


def build(settings: Settings) -> SamProposer:
    """Load SAM and return the proposer.

    Raises:
        WeightsError: if the checkpoint is missing, has a wrong checksum or does not fit.
    """
    return SamProposer(_load(settings), settings)


def _load(settings: Settings) -> "Sam":
    if settings.model == "tiny":
        from zspl.toyworld.sam import load_sam

        return load_sam()
    from segment_anything import sam_model_registry

    if settings.checkpoint is not None:
        path = weights.resolve(settings.checkpoint, sha256=settings.sha256)
    else:
        official = _OFFICIAL[settings.model]
        path = weights.obtain(official.file, url=_SITE + official.file, sha256=official.sha256)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything
        raise WeightsError(
            f"{path}: is no readable checkpoint ({' '.join(str(error).split())[:200]}); "
            "fetch it again"
        ) from error
    sam: Sam = sam_model_registry[settings.model]()
    try:
        sam.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path}: does not fit SAM {settings.model} "
            f"({' '.join(str(error).split())[:200]}); set propose.sam.model to what the file holds"
        ) from error
    return sam.eval().requires_grad_(requires_grad=False)


def _shrunk(image: Image.Image, max_side: int | None) -> Image.Image:
    if max_side is None or max(image.size) <= max_side:
        return image
    scale = max_side / max(image.size)
    width, height = (max(1, int(side * scale + 0.5)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _enlarged(mask: _Mask, size: tuple[int, int]) -> _Mask:
    if mask.shape == (size[1], size[0]):
        return mask
    resized = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.array(resized, dtype=bool)
