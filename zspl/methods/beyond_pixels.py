"""Beyond Pixels (Howlader et al. 2024): UniMatch beside a classifier of patches (methods.md 3.2).

A classifier on the finest level tells which classes each patch of 39 pixels holds. It learns from
the same labels as the network, and it doubts pseudo labels: where it finds a claimed class of a
patch least likely, neither the patch nor its pixels of that class teach.

Written from the description of the method: the published code cannot run on VOC or COCO. Unlike
it, how many patches of a class are doubted follows what the classifier learns of that class, as
the paper says (there, nothing is ever doubted): by the probability that it misses on the labeled
patches that hold the class, as a mean per epoch. Also unlike it, that share has an upper limit,
the geometry follows the crop, all three unlabeled patch losses have the weights of the labeled
one, and what holds no confident pixel, a patch or a batch, teaches nothing.

Unlike in UniMatch, an unlabeled loss is the mean over the confident pixels alone, however few.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from zspl.data.cutmix import paste
from zspl.errors import SettingsError
from zspl.losses import confidence_and_label, pixel_cross_entropy
from zspl.methods import Ensemble, Facts, Method, Moment
from zspl.methods._streams import mixed_strong_views, present, share, turned, watched
from zspl.models import SegmentationNetwork
from zspl.models.patch_classifier import (
    STRIDE,
    NoiseRates,
    PatchClassifier,
    cells,
    doubts,
    patch_labels,
    patch_loss,
    without,
)
from zspl.models.shapes import level_shapes
from zspl.records import IGNORE_INDEX, LabeledBatch, StepLoss, UnlabeledBatch
from zspl.settings import Section

NEEDS = frozenset({"labeled", "unlabeled"})

WEIGHTS = {"strong1": 0.25, "strong2": 0.25, "feature": 0.5}
"""Of the unlabeled pixel losses; the labeled losses have 1."""


class Settings(Section):
    """Settings of the method, with the published values for VOC where there are any."""

    min_confidence: float = Field(
        default=0.95, ge=0, le=1, description="Lowest confidence that teaches; Cityscapes: 0."
    )
    feature_dropout: float = Field(default=0.5, ge=0, lt=1)
    patch_weight: float = Field(
        default=0.1, ge=0, description="Of each unlabeled patch loss; the labeled one has 1."
    )
    patch_widths: tuple[int, int, int] = Field(
        default=(256, 128, 64), description="Channels of the patch classifier."
    )
    patch_dropout: float = Field(default=0.2, ge=0, lt=1)
    labeled_epochs: int = Field(
        default=1, ge=0, description="Epochs that learn from labeled crops alone, at first."
    )
    noise_rate: float = Field(
        default=1e-5, ge=0, le=1, description="Share of a class's patches that is doubted at first."
    )
    noise_decay: float = Field(
        default=1e-6,
        gt=0,
        le=1,
        description="Factor on the rate's growth after all epochs since the class was known worst.",
    )
    max_noise_rate: float = Field(default=0.1, ge=0, le=1, description="Ours: no rate goes beyond.")


class Patched(Ensemble):
    """The network, the patch classifier, and how much of each class is doubted."""

    def __init__(
        self, network: SegmentationNetwork, classifier: PatchClassifier, noise: NoiseRates
    ) -> None:
        super().__init__(network)
        self.classifier = classifier
        self.noise = noise

    def patches(self, level: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K h w"]:
        """Return the patch logits of the finest level."""
        logits: Tensor = self.classifier(self.classifier.pyramid(level))
        return logits


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """One unlabeled stream: what it says, and what teaches it.

    `pixels` and `patches` are its logits; `label` has 255 where the teacher is not confident;
    `judged` are the patch logits that decide which of the label to doubt.
    """

    pixels: Float[Tensor, "U K S S"]
    patches: Float[Tensor, "U K h w"]
    label: Int64[Tensor, "U S S"]
    judged: Float[Tensor, "U K h w"]


class BeyondPixels(Method):
    """L = (L_x + L_m + L_s1/4 + L_s2/4 + L_fp/2 + (L_ms1 + L_ms2 + L_mfp)/10) / 3.3."""

    def __init__(self, settings: Settings, *, labeled_only: bool = False) -> None:
        self._settings = settings
        self._labeled_only = labeled_only

    def prepare(
        self,
        network: SegmentationNetwork,
        another: Callable[[], SegmentationNetwork],  # noqa: ARG002 - part of the Method protocol
        facts: Facts,
    ) -> Patched:
        """Return the network beside a patch classifier of its finest level.

        Raises:
            SettingsError: if that level's cells are not 4 pixels apart.
        """
        channels, height, width = level_shapes(network.backbone, facts.crop_size)[0]
        expected = cells(facts.crop_size)
        if (height, width) != (expected, expected):
            raise SettingsError(
                f"method beyond_pixels: needs a backbone whose finest level has a stride of "
                f"{STRIDE} pixels ({expected} x {expected} cells for a crop of {facts.crop_size}), "
                f"got {height} x {width} cells; choose another backbone"
            )
        chosen, classes = self._settings, len(facts.class_names)
        classifier = PatchClassifier(
            channels, classes, widths=chosen.patch_widths, dropout=chosen.patch_dropout
        )
        return Patched(network, classifier, NoiseRates(classes, chosen.noise_rate))

    def at(self, moment: Moment) -> "BeyondPixels":
        """Return the method as it is in an epoch."""
        labeled_only = moment.epoch < self._settings.labeled_epochs
        return BeyondPixels(self._settings, labeled_only=labeled_only)

    def after_step(self, model: Patched, moment: Moment) -> None:
        """Settle the noise rates at the end of an epoch."""
        if (moment.iteration + 1) % moment.per_epoch == 0:
            epochs = moment.total / moment.per_epoch
            model.noise.close_epoch(
                moment.epoch,
                epochs=epochs,
                decay=self._settings.noise_decay,
                limit=self._settings.max_noise_rate,
            )

    def __call__(
        self,
        model: Patched,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step.

        Raises:
            ValueError: if there is no unlabeled batch.
        """
        unlabeled = present(unlabeled)
        if self._labeled_only:
            return self._first_step(model, labeled)
        losses, lessons, weak = _run(model, labeled, unlabeled, partner, settings=self._settings)
        parts = {}
        for name, lesson in lessons.items():
            losses[name], losses[f"patch_{name}"], parts[f"doubted_{name}"] = lesson_losses(
                lesson, model.noise.rate
            )
        total = torch.stack([self._weight(name) * loss for name, loss in losses.items()]).sum()
        confident = lessons["feature"].label != IGNORE_INDEX
        parts |= {name: loss.detach() for name, loss in losses.items()}
        parts["confident_share"] = share(confident, among=~unlabeled.padding)
        loss = StepLoss(total=total / (3 + 3 * self._settings.patch_weight), parts=parts)
        return watched(loss, weak, unlabeled)

    def _weight(self, name: str) -> float:
        return self._settings.patch_weight if name.startswith("patch_") else WEIGHTS.get(name, 1.0)

    def _first_step(self, model: Patched, labeled: LabeledBatch) -> StepLoss:
        model.train()
        levels = model.deployed.encode(labeled.image)
        logits = model.deployed.decode(levels, _size(labeled.image))
        patches = model.patches(levels[0])
        losses = _labeled_losses(model, logits, patches, labeled)
        parts = {name: loss.detach() for name, loss in losses.items()}
        return StepLoss(total=(losses["labeled"] + losses["patch"]) / 2, parts=parts)


def _size(images: Float[Tensor, "B 3 S S"]) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _labeled_losses(
    model: Patched, logits: Tensor, patches: Tensor, labeled: LabeledBatch
) -> dict[str, Tensor]:
    held = patch_labels(labeled.label, logits.shape[1])
    model.noise.note(patches.detach(), held)
    keep = torch.ones_like(held, dtype=torch.bool)
    return {
        "labeled": pixel_cross_entropy(logits, labeled.label),
        "patch": patch_loss(patches, labeled.label, keep),
    }


def _run(
    model: Patched,
    labeled: LabeledBatch,
    unlabeled: UnlabeledBatch,
    partner: UnlabeledBatch | None,
    *,
    settings: Settings,
) -> tuple[dict[str, Tensor], dict[str, Lesson], Tensor]:
    """Run every stream in UniMatch's order: labeled losses, lessons and logits of weak views."""
    network, boxes = model.deployed, (unlabeled.box1, unlabeled.box2)
    model.eval()
    with torch.no_grad():
        source = None if partner is None else _taught(network(partner.weak), partner, settings)
        other = turned(unlabeled.weak) if partner is None else partner.weak
        mixed = [paste(unlabeled.weak, other, box) for box in boxes]
        judged = [model.patches(network.encode(images)[0]) for images in mixed]
    model.train()
    rate, size = settings.feature_dropout, _size(labeled.image)
    counts = [len(labeled.image), len(unlabeled.weak)] * 2
    clean = network.encode(torch.cat([labeled.image, unlabeled.weak]))
    decoded = network.decode([torch.cat([x, F.dropout2d(x, rate)]) for x in clean], size)
    own, weak, _, feature = torch.split(decoded, counts)
    pyramid = model.classifier.pyramid(clean[0])
    found = model.classifier(torch.cat([pyramid, F.dropout2d(pyramid, rate)]))
    patches_own, patches_weak, _, patches_feature = torch.split(found, counts)
    strong = network.encode(torch.cat(mixed_strong_views(unlabeled, partner)))
    pixels, patches = network.decode(strong, size).chunk(2), model.patches(strong[0]).chunk(2)
    label = _taught(weak.detach(), unlabeled, settings)
    source = turned(label) if source is None else source
    labels = [paste(label, source, box) for box in boxes]
    lessons = {
        f"strong{k + 1}": Lesson(
            pixels=pixels[k], patches=patches[k], label=labels[k], judged=judged[k]
        )
        for k in range(len(boxes))
    }
    lessons["feature"] = Lesson(
        pixels=feature, patches=patches_feature, label=label, judged=patches_weak.detach()
    )
    return _labeled_losses(model, own, patches_own, labeled), lessons, weak


def _taught(
    logits: Float[Tensor, "U K S S"], batch: UnlabeledBatch, settings: Settings
) -> Int64[Tensor, "U S S"]:
    """Return the label of the confident pixels, 255 elsewhere and in the padding."""
    confidence, label = confidence_and_label(logits)
    return label.masked_fill((confidence < settings.min_confidence) | batch.padding, IGNORE_INDEX)


def lesson_losses(
    lesson: Lesson, rate: Float[Tensor, " K"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the pixel loss and the patch loss of one stream, and the share that was doubted.

    Args:
        lesson: The stream.
        rate: Noise rate of each class, in [0, 1].
    """
    held = patch_labels(lesson.label, len(rate)) > 0
    doubted = doubts(lesson.judged, held, rate)
    pixel = pixel_cross_entropy(lesson.pixels, without(lesson.label, doubted))
    # A patch of which nothing is known teaches nothing, not that it holds no class.
    patch = patch_loss(lesson.patches, lesson.label, ~doubted & held.any(dim=1, keepdim=True))
    return pixel, patch, share(doubted, among=held)


def build(settings: Settings) -> Method:
    """Build the method."""
    return BeyondPixels(settings)
