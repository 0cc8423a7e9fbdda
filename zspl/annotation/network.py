"""Photos labeled by a trained network, with the confidence that it has itself."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from zspl.annotation.annotator import Annotation, Seen
from zspl.data.loading import normalise
from zspl.io import atomic
from zspl.io.images import Pixels
from zspl.models import SegmentationNetwork
from zspl.models.views import combined
from zspl.records import PseudoLabel
from zspl.viz import outlined

_QUALITY = 88


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How a network looks at photos; the fields are those of the section `evaluate`."""

    window: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is one pass over the whole photo, in which logits are compared."""
        return self.window is None and self.scales == (1.0,) and not self.flip


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedNetwork:
    """Labels photos; those of one size share a pass."""

    model: SegmentationNetwork
    look: Look

    def annotate(self, photos: Sequence[Seen]) -> list[Annotation]:
        """Label photos: the most likely class of each pixel, and its probability."""
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, seen in enumerate(photos):
            by_size[seen.image.size].append(index)
        made: dict[int, PseudoLabel] = {}
        for indices in by_size.values():
            found = self._label([photos[index] for index in indices])
            made.update(zip(indices, found, strict=True))
        return [
            Annotation(seen=seen, made=made[index], coverage=None, conflict=None)
            for index, seen in enumerate(photos)
        ]

    def _label(self, photos: Sequence[Seen]) -> list[PseudoLabel]:
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            batch = torch.stack([normalise(seen.image) for seen in photos]).to(device)
            scores, probabilities = self._scores(batch)
            # As `zspl.inference.predict` decides: ties of saturated probabilities are none.
            labels = scores.max(dim=1).indices
            confidence = probabilities.gather(1, labels[:, None])[:, 0].clamp(0, 1).cpu()
            labels = labels.to(torch.uint8).cpu()
        pairs = zip(labels, confidence, strict=True)
        return [PseudoLabel(label=lab, confidence=conf, segments=()) for lab, conf in pairs]

    def _scores(
        self, batch: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B C H W"]]:
        """Return what is compared, and the class probabilities."""
        if self.look.plain:
            logits: Tensor = self.model(batch)
            return logits, logits.softmax(dim=1)
        look = self.look
        view = combined(self.model, window=look.window, scales=look.scales, flip=look.flip)
        probabilities = view(batch)
        return probabilities, probabilities


def overlay_path(out: Path, name: str) -> Path:
    """Where the photo with its labels painted on lies."""
    return out / "overlays" / f"{name}.jpg"


def write_overlay(out: Path, seen: Seen, label: Pixels) -> None:
    """Write a photo of its own size with UInt8[H W] labels painted on, as JPEG, atomically.

    Raises:
        DiskError: if it cannot be written.
    """
    painted = outlined(seen.image, label)
    path = overlay_path(out, seen.photo.name)
    atomic.write(path, lambda temporary: painted.save(temporary, format="JPEG", quality=_QUALITY))
