"""Training batches as a pure function of seed and step, so that a training can resume anywhere.

The distributions are UniMatch's; the random numbers are our own (one generator per sample), so
no sample equals one of the official code. Unlike UniMatch, labeled and unlabeled ids are
shuffled independently (there, equal seeds pair unlabeled image i with labeled image i mod N for
good), and a labeled list longer than the unlabeled one is not truncated, so none goes unused.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Steps

from zspl.data import cutmix, geometry
from zspl.data._checks import check_confidences, check_images, check_labels
from zspl.data.order import IdStream, Share
from zspl.data.stock import Stock
from zspl.data.strong import strong_view
from zspl.errors import DataError, ZsplError
from zspl.io import processes
from zspl.io.classes import ClassTable
from zspl.records import ImageRecord, LabeledBatch, Split, UnlabeledBatch
from zspl.seeding import generator
from zspl.settings import Train

MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue over ImageNet, in [0, 1]."""

STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green and blue over ImageNet, in [0, 1]."""

EVERYTHING = frozenset({"labeled", "unlabeled", "labels"})
"""What most methods need at most: labeled images, unlabeled images, pseudo labels."""

CONFIDENCE = "confidence"
"""What a method needs that also reads how sure the pseudo labels are."""

Batches = tuple[LabeledBatch, UnlabeledBatch | None, UnlabeledBatch | None]
"""What one step learns from: labeled crops, unlabeled crops and their CutMix partner."""


def normalise(image: Image.Image) -> Float[Tensor, "3 H W"]:
    """Return an RGB image as a tensor with ImageNet's mean and standard deviation taken out."""
    return _normalised([np.asarray(image)])[0]


def _normalised(crops: Sequence[UInt8[np.ndarray, "H W 3"]]) -> Float[Tensor, "B 3 H W"]:
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return pixels.float().div_(255).sub_(mean).div_(std)


def _long(labels: Sequence[UInt8[np.ndarray, "S S"]]) -> Int64[Tensor, "B S S"]:
    return torch.from_numpy(np.stack(labels)).long()


def _confidence(levels: Sequence[UInt8[np.ndarray, "S S"]]) -> Float[Tensor, "B S S"]:
    return torch.from_numpy(np.stack(levels)).float() / 255


@dataclass(frozen=True, kw_only=True, slots=True)
class _Crop:
    """One unlabeled sample before it is batched."""

    weak: UInt8[np.ndarray, "S S 3"]
    strong: tuple[UInt8[np.ndarray, "S S 3"], UInt8[np.ndarray, "S S 3"]]
    padding: Bool[np.ndarray, "S S"]
    boxes: tuple[Bool[Tensor, "S S"], Bool[Tensor, "S S"]]
    zero_shot: UInt8[np.ndarray, "S S"] | None
    confidence: UInt8[np.ndarray, "S S"] | None


class TrainingData:
    """The batches of one training; of several processes, each one's share of the same batches.

    Args:
        records: The images of the data set, by id.
        split: Who is labeled and unlabeled.
        table: The classes.
        recipe: `train` of params.yaml: crop, scales and batch sizes.
        seed: Of the training cell.
        pseudo_labels: A folder with one `<image id>.png` of class ids per unlabeled image, and
            `<image id>.confidence.png` of 255 times the confidence for a method that reads it.

    Raises:
        DataError: if an image, a labeled one's mask or an unlabeled one's pseudo label is missing.
    """

    def __init__(
        self,
        records: Mapping[str, ImageRecord],
        split: Split,
        table: ClassTable,
        recipe: Train,
        seed: int,
        pseudo_labels: Path | None = None,
    ) -> None:
        self._split = split
        self._recipe = recipe
        self._seed = seed
        self._has_labels = pseudo_labels is not None
        self._share = Share(processes.rank(), processes.count(), recipe.accumulate)
        self._stock = Stock(records, table, pseudo_labels=pseudo_labels)
        check_images(records, split)
        if self._has_labels:
            check_labels(self._stock, split)
        labeled, unlabeled = split.labeled, split.unlabeled
        times = max(1, math.ceil(len(unlabeled) / len(labeled)))
        size = max(len(labeled), len(unlabeled))
        batch = recipe.batch_labeled
        self._once = IdStream(labeled, batch, seed=seed, purpose="labeled")
        self._repeated = IdStream((labeled * times)[:size], batch, seed=seed, purpose="labeled")
        self._unlabeled = (
            IdStream(unlabeled, recipe.batch_unlabeled, seed=seed, purpose="unlabeled")
            if unlabeled
            else None
        )

    def iterations_per_epoch(self, needs: Collection[str]) -> int:
        """Return the steps of one pass over the unlabeled list, or the only list a method reads.

        As in UniMatch, `batch_unlabeled` alone decides; a longer labeled list goes on in the
        next epoch where it stopped.

        Raises:
            DataError: if the method needs unlabeled images and the split has none.
        """
        if "unlabeled" not in needs:
            return len(self._once)
        return len(self._unlabeled_stream())

    def ids(self, step: int, needs: Collection[str]) -> tuple[Sequence[str], Sequence[str]]:
        """Return the ids of the labeled and of the unlabeled images that `load` returns."""
        if "unlabeled" not in needs:
            return self._own(self._once, step), ()
        return self._own(self._repeated, step), self._own(self._unlabeled_stream(), step)

    def _own(self, stream: IdStream, step: int) -> list[str]:
        return [image_id for _, image_id in self._share.of(stream.at(step))]

    def labeled_batch(self, step: int, *, repeated: bool = True) -> LabeledBatch:
        """Return the labeled crops of a step.

        Args:
            step: 0-based iteration.
            repeated: Whether ids repeat to the length of the unlabeled list before they are
                shuffled, as in semi-supervised training; else each comes once per epoch.
        """
        ids = (self._repeated if repeated else self._once).at(step)
        images, labels = [], []
        for index, image_id in self._share.of(ids):
            rng = generator(self._seed, "labeled", step, index)
            image = self._stock.image(image_id)
            drawn = self._draw(image, rng)
            images.append(drawn.image(image))
            labels.append(drawn.label(self._stock.label(image_id)))
        return LabeledBatch(image=_normalised(images), label=_long(labels))

    def unlabeled_batch(self, step: int, stream: int = 0) -> UnlabeledBatch:
        """Return the unlabeled crops of a step.

        Args:
            step: 0-based iteration.
            stream: 0, or 1 for the CutMix partner: the same images in the same order under
                independent draws, as in UniMatch (V1).

        Raises:
            DataError: if the split has no unlabeled images.
        """
        needs = EVERYTHING if self._has_labels else EVERYTHING - {"labels"}
        return self._unlabeled_batch(step, stream, needs)

    def batches(
        self,
        start: int,
        stop: int,
        workers: int = 0,
        needs: Collection[str] = EVERYTHING,
    ) -> Iterator[Batches]:
        """Yield the batches of the steps start, ..., stop - 1.

        Args:
            start: First step.
            stop: One beyond the last step.
            workers: Processes that load ahead; they change the speed, not one bit.
            needs: What the method reads, of `EVERYTHING` and `CONFIDENCE`; what it does not read
                is None.

        Raises:
            ValueError: if pseudo labels are needed and there are none.
            DataError: if unlabeled images are needed and there are none, or a file is missing or
                broken.
        """
        if {"labels", CONFIDENCE} & set(needs) and not self._has_labels:
            raise ValueError("the method needs pseudo labels, expected pseudo_labels, got None")
        if CONFIDENCE in needs:
            check_confidences(self._stock, self._split)
        steps = _Steps(self, frozenset(needs))
        if workers == 0:
            yield from map(steps.load, range(start, stop))
            return
        loader = DataLoader(
            steps,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=workers,
            collate_fn=_unchanged,
        )
        for loaded in loader:
            # An exception that crosses the loader itself would arrive as a page of traceback.
            if isinstance(loaded, ZsplError):
                raise loaded
            yield loaded

    def load(self, step: int, needs: Collection[str]) -> Batches:
        """Return what one step of a method with these needs learns from."""
        if "unlabeled" not in needs:
            return self.labeled_batch(step, repeated=False), None, None
        main, partner = (self._unlabeled_batch(step, stream, needs) for stream in (0, 1))
        return self.labeled_batch(step), main, partner

    def _unlabeled_batch(self, step: int, stream: int, needs: Collection[str]) -> UnlabeledBatch:
        crops = [
            self._crop(image_id, generator(self._seed, "unlabeled", step, stream, index), needs)
            for index, image_id in self._share.of(self._unlabeled_stream().at(step))
        ]
        labels = [crop.zero_shot for crop in crops if crop.zero_shot is not None]
        confidences = [crop.confidence for crop in crops if crop.confidence is not None]
        return UnlabeledBatch(
            weak=_normalised([crop.weak for crop in crops]),
            strong1=_normalised([crop.strong[0] for crop in crops]),
            strong2=_normalised([crop.strong[1] for crop in crops]),
            padding=torch.from_numpy(np.stack([crop.padding for crop in crops])),
            box1=torch.stack([crop.boxes[0] for crop in crops]),
            box2=torch.stack([crop.boxes[1] for crop in crops]),
            zero_shot=_long(labels) if labels else None,
            zero_shot_confidence=_confidence(confidences) if confidences else None,
        )

    def _crop(self, image_id: str, rng: np.random.Generator, needs: Collection[str]) -> _Crop:
        image = self._stock.image(image_id)
        drawn = self._draw(image, rng)
        weak = drawn.image(image)
        first, second = (
            (strong_view(weak, rng), cutmix.draw_box(self._recipe.crop_size, rng)) for _ in range(2)
        )
        label, sure = "labels" in needs, CONFIDENCE in needs
        return _Crop(
            weak=weak,
            strong=(first[0], second[0]),
            padding=drawn.padding(),
            boxes=(first[1], second[1]),
            zero_shot=drawn.label(self._stock.pseudo_label(image_id)) if label else None,
            confidence=drawn.label(self._stock.confidence(image_id), fill=0) if sure else None,
        )

    def _draw(self, image: Image.Image, rng: np.random.Generator) -> geometry.Geometry:
        side, scales = self._recipe.crop_size, self._recipe.scale_range
        return geometry.draw(image.size, rng, side=side, scale_range=scales)

    def _unlabeled_stream(self) -> IdStream:
        if self._unlabeled is None:
            raise DataError(
                f"split {self._split.name}: has no unlabeled images, but the method needs them; "
                "choose a smaller split or a supervised method"
            )
        return self._unlabeled


class _Steps(Steps[Batches | ZsplError]):
    """The steps of a training as a map-style data set."""

    def __init__(self, data: TrainingData, needs: frozenset[str]) -> None:
        self._data = data
        self._needs = needs

    def load(self, step: int) -> Batches:
        return self._data.load(step, self._needs)

    def __getitem__(self, step: int) -> Batches | ZsplError:
        try:
            return self.load(step)
        except ZsplError as error:
            return error


def _unchanged(loaded: Any) -> Any:  # noqa: ANN401 - the loader types it as a list
    return loaded
