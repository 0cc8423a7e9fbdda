"""AllSpark (Wang et al. 2024): labeled crops, rebuilt from unlabeled ones (methods.md 3.1).

A module before the decoder rebuilds the coarsest level of labeled crops out of the channels of
unlabeled ones, so that the few labels do not rule the training: zspl/models/heads/_allspark.py.
From `memory_from` epochs on the channels come from a memory that keeps some of every class.

As in the official code there is no threshold, no CutMix and no moving average: the network's
own most likely class, in evaluation mode, teaches every pixel of the weak view, the padding too.
So it needs pretrained weights: from random ones it can settle on one class within a few steps,
which `class_drift` shows.

Unlike in the official code, the memory is no part of the finished network, which takes crops of any
size, and the seed decides the colours of the labeled crops. Evaluation follows the rule of
zspl/models/heads/_allspark.py: the output of an image does not depend on its batch.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.data.loading import MEAN, STD
from zspl.data.strong import strong_view
from zspl.losses import CrossEntropy, LabeledLoss, pixel_cross_entropy
from zspl.methods import Ensemble, Facts, Method, Moment
from zspl.methods._streams import watched
from zspl.models import SegmentationNetwork
from zspl.models.heads._allspark import AllSpark, SparkedHead
from zspl.models.shapes import level_shapes
from zspl.records import IGNORE_INDEX, LabeledBatch, StepLoss, UnlabeledBatch
from zspl.settings import Section

NEEDS = frozenset({"labeled", "unlabeled"})


class Settings(Section):
    """Settings of the method, with the published values for VOC.

    `heads` and `attention_dropout` are of the module that the method puts before the decoder; a
    model whose head is `allspark` brings its own.
    """

    memory_from: int = Field(
        default=5,
        ge=0,
        description="Epoch from which keys come from the memory; Cityscapes: 15, COCO: not given.",
    )
    heads: int = Field(default=2, gt=0)
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    strong_labeled: bool = Field(
        default=True, description="Labeled crops get the colours of a strong view."
    )
    label_together: bool = Field(
        default=True,
        description="Crops of one batch are mixed while they are labeled; false: each alone.",
    )
    labeled_loss: LabeledLoss = Field(
        default=CrossEntropy(), description="ce, or ohem as published for Cityscapes."
    )
    teach_padding: bool = Field(
        default=True, description="The padding of a crop is taught like any pixel."
    )


class ClassMemory(nn.Module):
    """A ring of channels per class, each channel being its values at the N positions."""

    queue: Tensor
    pointer: Tensor

    def __init__(self, num_classes: int, channels: int, positions: int) -> None:
        super().__init__()
        self.register_buffer("queue", torch.randn(num_classes, channels, positions))
        self.register_buffer("pointer", torch.zeros(num_classes, dtype=torch.long))

    @torch.no_grad()
    def store(self, tokens: Float[Tensor, "B N C"], classes: Int64[Tensor, "B C"]) -> None:
        """Write each channel into the ring of its class, image by image, over the oldest ones.

        Args:
            tokens: What the channels hold.
            classes: The class of each channel.
        """
        size = self.queue.shape[1]
        for image, chosen in zip(tokens, classes, strict=True):
            member = F.one_hot(chosen, len(self.queue))
            rank = member.cumsum(0).gather(1, chosen[:, None])[:, 0] - 1
            self.queue[chosen, (self.pointer[chosen] + rank) % size] = image.mT.to(self.queue.dtype)
            self.pointer.add_(member.sum(0)).remainder_(size)

    def tokens(self) -> Float[Tensor, "K N C"]:
        """Return the memory as tokens, a source per class."""
        return self.queue.mT.clone()


class Sparked(Ensemble):
    """The network, and the memory that only training reads."""

    def __init__(self, network: SegmentationNetwork, memory: ClassMemory) -> None:
        super().__init__(network)
        self.memory = memory


class AllSparkMethod(Method):
    """L = (CE(labeled, mask) + CE(unlabeled, own label)) / 2."""

    def __init__(self, settings: Settings, *, from_memory: bool = False) -> None:
        self._settings = settings
        self._from_memory = from_memory

    def adapt(self, network: SegmentationNetwork, facts: Facts) -> SegmentationNetwork:
        """Return the network with the module before its decoder, if it is not there yet."""
        if isinstance(network.head, SparkedHead):
            return network
        channels = level_shapes(network.backbone, facts.crop_size)[-1][0]
        module = AllSpark(
            channels, heads=self._settings.heads, dropout=self._settings.attention_dropout
        )
        return SegmentationNetwork(network.backbone, SparkedHead(network.head, module))

    def prepare(
        self,
        network: SegmentationNetwork,
        another: Callable[[], SegmentationNetwork],  # noqa: ARG002 - part of the Method protocol
        facts: Facts,
    ) -> Sparked:
        """Return the network and a memory of random channels."""
        channels, height, width = level_shapes(network.backbone, facts.crop_size)[-1]
        return Sparked(network, ClassMemory(len(facts.class_names), channels, height * width))

    def at(self, moment: Moment) -> "AllSparkMethod":
        """Return the method as it is in an epoch."""
        return AllSparkMethod(
            self._settings, from_memory=moment.epoch >= self._settings.memory_from
        )

    def __call__(
        self,
        model: Sparked,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,  # noqa: ARG002 - part of the Method protocol
    ) -> StepLoss:
        """Return the loss of one step; labeled and unlabeled crops form one training batch.

        Raises:
            ValueError: if there is no unlabeled batch, or the network lacks the module.
        """
        if unlabeled is None:
            raise ValueError("this method needs an unlabeled batch")
        network, head = model.deployed, model.deployed.head
        if not isinstance(head, SparkedHead):
            raise ValueError("this method needs a network that its own `adapt` returned")
        found = self._found(model, head, unlabeled.weak)
        model.train()
        image = recoloured(labeled.image) if self._settings.strong_labeled else labeled.image
        features = network.encode(torch.cat([image, unlabeled.weak]))

        def source(tokens: Float[Tensor, "U N C"]) -> Float[Tensor, "M N C"]:
            model.memory.store(tokens.detach(), channel_classes(tokens.detach(), found))
            return model.memory.tokens() if self._from_memory else tokens

        coarsest = head.allspark.rebuild(features[-1], labeled=len(image), source=source)
        size = (image.shape[-2], image.shape[-1])
        logits = head.decode_with(features, coarsest, size).float()
        label = found.argmax(dim=1)
        if not self._settings.teach_padding:
            label = label.masked_fill(unlabeled.padding, IGNORE_INDEX)
        losses = {
            "labeled": self._settings.labeled_loss(logits[: len(image)], labeled.label),
            "unlabeled": pixel_cross_entropy(logits[len(image) :], label),
        }
        parts = {name: loss.detach() for name, loss in losses.items()}
        loss = StepLoss(total=(losses["labeled"] + losses["unlabeled"]) / 2, parts=parts)
        return watched(loss, found, unlabeled)

    @torch.no_grad()
    def _found(
        self, model: Sparked, head: SparkedHead, images: Float[Tensor, "U 3 S S"]
    ) -> Float[Tensor, "U K S S"]:
        """Return the logits that label the unlabeled crops, in evaluation mode."""
        model.eval()
        features = model.deployed.encode(images)
        rebuild = head.allspark.rebuild_together if self._settings.label_together else head.allspark
        size = (images.shape[-2], images.shape[-1])
        return head.decode_with(features, rebuild(features[-1]), size).float()


def channel_classes(
    tokens: Float[Tensor, "U N C"], logits: Float[Tensor, "U K S S"]
) -> Int64[Tensor, "U C"]:
    """Return the class whose map of logits each channel resembles most, by cosine.

    As in the official code these are logits and no probabilities, resized to the level's grid.

    Args:
        tokens: N = n*n positions of C channels.
        logits: Of the same crops.
    """
    side = round(tokens.shape[1] ** 0.5)
    maps = F.interpolate(logits, size=(side, side), mode="bilinear").flatten(2)
    # In half precision channels would change class where two are close.
    with torch.autocast(maps.device.type, enabled=False):
        likeness = F.normalize(maps, dim=2) @ F.normalize(tokens.to(maps.dtype), dim=1)
    return likeness.argmax(dim=1)


def recoloured(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Return strong views of normalised crops; random numbers follow torch's generator."""
    rng = np.random.default_rng(int(torch.randint(2**62, ())))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    levels = images.detach().cpu().float().mul(std).add(mean).mul(255).round().clamp(0, 255)
    crops = levels.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    views = torch.from_numpy(np.stack([strong_view(crop, rng) for crop in crops]))
    pixels = views.permute(0, 3, 1, 2).float().div(255).sub(mean).div(std)
    return pixels.to(images.device, images.dtype)


def build(settings: Settings) -> Method:
    """Build the method."""
    return AllSparkMethod(settings)
