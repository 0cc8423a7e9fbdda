"""What travels between stages: frozen records with their shapes in the types.

B images, C classes, K prompts, D feature channels, H W pixels, h w feature cells,
N proposals, S the side of a training crop.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

IGNORE_INDEX = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord:
    """One image of a data set; `label_path` is None for an image without a mask.

    `digest` is the sha256 of the image's (and mask's) bytes, so that a changed pixel shows.
    """

    image_id: str
    image_path: Path
    label_path: Path | None
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Who is used for what: four disjoint lists of image ids.

    `holdout` is cut from the labeled ids (empty unless configured) and selects the checkpoint.
    """

    name: str
    labeled: tuple[str, ...]
    holdout: tuple[str, ...]
    unlabeled: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How many images a split has, and how large one is; known without the data where possible.

    `train` counts all train images, `pixels` are those of a usual image. `exact` is False where a
    list names images that may be absent.
    """

    train: int
    labeled: int
    unlabeled: int
    val: int
    pixels: int
    exact: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentProposals:
    """Class-agnostic masks for one image, best first.

    `predicted_iou` and `stability_score` keep SAM's names; the latter lies in [0, 1], the former is
    SAM's own guess, which may be a little above 1.
    """

    masks: Bool[Tensor, "N H W"]
    predicted_iou: Float[Tensor, " N"]
    stability_score: Float[Tensor, " N"]

    def __post_init__(self) -> None:
        if (self.predicted_iou.diff() > 0).any():
            raise ValueError("proposals must be sorted by descending predicted_iou")


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseFeatures:
    """One embedding per grid cell in the joint image-text space, not normalised.

    `image_size` is the (height, width) of the original image, in pixels. An encoder that looks
    at segments one by one also gives `segments`: one embedding per proposal, in their order.
    """

    grid: Float[Tensor, "D h w"]
    image_size: tuple[int, int]
    segments: Float[Tensor, "N D"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEmbeddings:
    """One L2-normalised embedding per text; `ClassTable.text_classes` tells each text's class."""

    vectors: Float[Tensor, "P D"]
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentRow:
    """What is known of one segment of a pseudo label.

    `area` in pixels, `bbox` XYWH in pixels, `classes` the three best class ids (1..K, best
    first) with their `cosines` (in [-1, 1]) and `probabilities` (in [0, 1]); `assigned` is the
    class painted, 0 or 255 when none was.
    """

    area: int
    bbox: tuple[int, int, int, int]
    predicted_iou: float
    stability_score: float
    classes: tuple[int, ...]
    cosines: tuple[float, ...]
    probabilities: tuple[float, ...]
    assigned: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoLabel:
    """A label map made without a human: class ids, 255 where nothing is claimed."""

    label: UInt8[Tensor, "H W"]
    confidence: Float[Tensor, "H W"]
    segments: tuple[SegmentRow, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LabeledBatch:
    """Normalised crops with their masks; 255 is void or padding."""

    image: Float[Tensor, "B 3 S S"]
    label: Int64[Tensor, "B S S"]


@dataclass(frozen=True, kw_only=True, slots=True)
class UnlabeledBatch:
    """One draw of the unlabeled stream: a weak and two strong views of the same crops.

    `padding` is True where the crop reaches beyond the image; `box1` and `box2` are the
    CutMix boxes of the two strong views; `zero_shot` is the pseudo label under the same
    geometry (255 in the padding) and `zero_shot_confidence` how sure it is, in [0, 1] (0 in the
    padding), or None for a method that reads none.
    """

    weak: Float[Tensor, "B 3 S S"]
    strong1: Float[Tensor, "B 3 S S"]
    strong2: Float[Tensor, "B 3 S S"]
    padding: Bool[Tensor, "B S S"]
    box1: Bool[Tensor, "B S S"]
    box2: Bool[Tensor, "B S S"]
    zero_shot: Int64[Tensor, "B S S"] | None
    zero_shot_confidence: Float[Tensor, "B S S"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LabeledCrops:
    """A labeled batch in the bytes that leave the loader under `train.views: tensor`."""

    image: UInt8[Tensor, "B S S 3"]
    label: UInt8[Tensor, "B S S"]


@dataclass(frozen=True, kw_only=True, slots=True)
class UnlabeledCrops:
    """An unlabeled batch in the bytes that leave the loader under `train.views: tensor`.

    The bits of `marks` are, from the lowest, the padding and the CutMix boxes of the two strong
    views; `colours` holds one row of zspl/data/colour_rows.py per crop and strong view.
    `zero_shot` is 255 and `zero_shot_confidence`, in 1/255, is 0 in the padding.
    """

    image: UInt8[Tensor, "B S S 3"]
    marks: UInt8[Tensor, "B S S"]
    colours: Float[Tensor, "B 2 K"]
    zero_shot: UInt8[Tensor, "B S S"] | None
    zero_shot_confidence: UInt8[Tensor, "B S S"] | None


Batches = tuple[LabeledBatch, UnlabeledBatch | None, UnlabeledBatch | None]
"""What one step learns from: labeled crops, unlabeled crops and their CutMix partner.

The partner is None where no crop is unlabeled, and where CutMix pastes within the batch.
"""

Loaded = tuple[
    LabeledBatch | LabeledCrops,
    UnlabeledBatch | UnlabeledCrops | None,
    UnlabeledBatch | UnlabeledCrops | None,
]
"""The same as it leaves the loader: batches under `train.views: pillow`, bytes under `tensor`."""


def each_tensor(loaded: Loaded, change: Callable[[Tensor], Tensor]) -> Loaded:
    """Return what one step learns from with every tensor changed."""
    labeled, unlabeled, partner = loaded
    return (
        replace(labeled, **_changed(labeled, change)),
        unlabeled and replace(unlabeled, **_changed(unlabeled, change)),
        partner and replace(partner, **_changed(partner, change)),
    )


def _changed(record: Any, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:  # noqa: ANN401
    tensors = ((f.name, getattr(record, f.name)) for f in fields(record))
    return {name: v if v is None else change(v) for name, v in tensors}


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLoss:
    """The loss of one training step: `total` is minimised, `parts` are only reported.

    `found` counts the pixels of each class among the labels that the model gave to unlabeled
    crops in this step, padding left out; None for a method whose model labels nothing.
    """

    total: Float[Tensor, ""]
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    found: Int64[Tensor, " C"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationMetrics:
    """Scores from one confusion matrix pooled over a split.

    `confusion[t, p]` counts pixels of true class t predicted as p (255 skipped); `iou` is in
    [0, 1], NaN for a class in neither truth nor prediction; `miou` averages the rest;
    `miou_absent_zero` is UniMatch's convention (an absent class counts 0).
    """

    confusion: Int64[Tensor, "C C"]
    iou: Float[Tensor, " C"]
    precision: Float[Tensor, " C"]
    recall: Float[Tensor, " C"]
    miou: float
    miou_absent_zero: float
    pixel_accuracy: float
