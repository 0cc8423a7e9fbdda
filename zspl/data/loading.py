"""Training batches as a pure function of seed and step, so that a training can resume anywhere.

The distributions are UniMatch's; the random numbers are our own (one generator per sample), so
no sample equals one of the official code. Unlike UniMatch, labeled and unlabeled ids are
shuffled independently (there, equal seeds pair unlabeled image i with labeled image i mod N for
good), and a labeled list longer than the unlabeled one is not truncated, so none goes unused.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from zspl.data import cutmix, geometry
from zspl.data._checks import check_confidences, check_images, check_labels
from zspl.data.order import IdStream, Share
from zspl.data.prefetch import prefetched
from zspl.data.samples import Picture, Sample, labeled_crops, unlabeled_crops
from zspl.data.stock import Stock
from zspl.data.strong import draw_colours, strong_view
from zspl.errors import DataError
from zspl.io import processes
from zspl.io.classes import ClassTable
from zspl.records import (
    ImageRecord,
    LabeledBatch,
    LabeledCrops,
    Loaded,
    Split,
    UnlabeledBatch,
    UnlabeledCrops,
)
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

AHEAD = {"pillow": 2, "tensor": 4}
"""Steps that a worker prepares ahead; those of `pillow` are 7 times as large."""


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


def _strong(samples: Sequence[Sample], number: int) -> list[Picture]:
    views = (sample.strong[number] for sample in samples)
    return [view for view in views if isinstance(view, np.ndarray)]


def _unlabeled_batch(samples: Sequence[Sample]) -> UnlabeledBatch:
    labels = [sample.zero_shot for sample in samples if sample.zero_shot is not None]
    confidences = [sample.confidence for sample in samples if sample.confidence is not None]
    return UnlabeledBatch(
        weak=_normalised([sample.weak for sample in samples]),
        strong1=_normalised(_strong(samples, 0)),
        strong2=_normalised(_strong(samples, 1)),
        padding=torch.from_numpy(np.stack([sample.padding for sample in samples])),
        box1=torch.stack([sample.boxes[0] for sample in samples]),
        box2=torch.stack([sample.boxes[1] for sample in samples]),
        zero_shot=_long(labels) if labels else None,
        zero_shot_confidence=_confidence(confidences) if confidences else None,
    )


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
        self._as_bytes = recipe.views == "tensor"
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

    def labeled_batch(self, step: int, *, repeated: bool = True) -> LabeledBatch | LabeledCrops:
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
            images.append(self._cropped(image, drawn))
            labels.append(drawn.label(self._stock.label(image_id)))
        if self._as_bytes:
            return labeled_crops(images, labels)
        return LabeledBatch(image=_normalised(images), label=_long(labels))

    def unlabeled_batch(self, step: int, stream: int = 0) -> UnlabeledBatch | UnlabeledCrops:
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
    ) -> Iterator[Loaded]:
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
            SettingsError: if CutMix shall paste within a batch of one crop.
        """
        if "unlabeled" in needs and self._recipe.cutmix_partner == "batch":
            self._share.check_pairs(self._recipe.batch_unlabeled)
        if {"labels", CONFIDENCE} & set(needs) and not self._has_labels:
            raise ValueError("the method needs pseudo labels, expected pseudo_labels, got None")
        if CONFIDENCE in needs:
            check_confidences(self._stock, self._split)
        ahead = AHEAD[self._recipe.views]
        steps = range(start, stop)
        yield from prefetched(self.load, steps, frozenset(needs), workers=workers, ahead=ahead)

    def load(self, step: int, needs: Collection[str]) -> Loaded:
        """Return what one step of a method with these needs learns from."""
        if "unlabeled" not in needs:
            return self.labeled_batch(step, repeated=False), None, None
        main = self._unlabeled_batch(step, 0, needs)
        pairs = self._recipe.cutmix_partner == "same_image"
        partner = self._unlabeled_batch(step, 1, needs) if pairs else None
        return self.labeled_batch(step), main, partner

    def _unlabeled_batch(
        self, step: int, stream: int, needs: Collection[str]
    ) -> UnlabeledBatch | UnlabeledCrops:
        samples = [
            self._sample(image_id, generator(self._seed, "unlabeled", step, stream, index), needs)
            for index, image_id in self._share.of(self._unlabeled_stream().at(step))
        ]
        return unlabeled_crops(samples) if self._as_bytes else _unlabeled_batch(samples)

    def _sample(self, image_id: str, rng: np.random.Generator, needs: Collection[str]) -> Sample:
        image = self._stock.image(image_id)
        drawn = self._draw(image, rng)
        weak = self._cropped(image, drawn)
        first, second = (
            (
                draw_colours(rng) if self._as_bytes else strong_view(weak, rng),
                cutmix.draw_box(self._recipe.crop_size, rng),
            )
            for _ in range(2)
        )
        label, sure = "labels" in needs, CONFIDENCE in needs
        return Sample(
            weak=weak,
            strong=(first[0], second[0]),
            padding=drawn.padding(),
            boxes=(first[1], second[1]),
            zero_shot=drawn.label(self._stock.pseudo_label(image_id)) if label else None,
            confidence=drawn.label(self._stock.confidence(image_id), fill=0) if sure else None,
        )

    def _cropped(self, image: Image.Image, drawn: geometry.Geometry) -> Picture:
        return drawn.window(image) if self._as_bytes else drawn.image(image)

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
