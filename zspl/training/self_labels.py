"""Labels that a trained network gives to unlabeled images, for a later round to learn from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from zspl.inference import most_likely, predict
from zspl.io import atomic, processes
from zspl.io.images import read_image, write_label
from zspl.methods import SelfLabels
from zspl.metrics import ConfusionMatrix
from zspl.models import SegmentationNetwork
from zspl.models.views import combined
from zspl.observer import progress
from zspl.records import ImageRecord


def stability(predictions: Sequence[UInt8[Tensor, "H W"]], *, num_classes: int) -> float:
    """Return how little the predictions of one image changed in training (ST++, methods.md 3.4).

    Args:
        predictions: Class ids by kept models, in the order of training; 2 or more.
        num_classes: Background included.

    Returns:
        The mean, over all but the last, of the mIoU against the last prediction, in [0, 1]; each
        mIoU is of this image alone, over the classes that either prediction holds.

    Raises:
        ValueError: if there are fewer than two predictions.
    """
    *earlier, last = predictions
    if not earlier:
        raise ValueError(f"expected 2 or more predictions, got {len(predictions)}")
    scores = []
    for prediction in earlier:
        matrix = ConfusionMatrix(num_classes)
        matrix.update(prediction, last)
        scores.append(matrix.compute().miou)
    return sum(scores) / len(scores)


def judge(
    models: Sequence[SegmentationNetwork],
    records: Sequence[ImageRecord],
    *,
    num_classes: int,
    path: Path,
) -> Mapping[str, float]:
    """Return the stability of each image, in [0, 1], written to `path` or read from there.

    Args:
        models: In evaluation mode, in the order of training; the last one is the judge.
        records: The unlabeled images.
        num_classes: Background included.
        path: A JSON file; where it exists nothing is predicted.

    Raises:
        DataError: if an image is missing or unreadable.
    """
    if path.exists():
        known: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return known
    own, mine = [], processes.share(records)
    for record in progress(mine, what="stability of predictions", total=len(mine)):
        image = read_image(record.image_path)
        predictions = [predict(model, image) for model in models]
        own.append((record.image_id, stability(predictions, num_classes=num_classes)))
    known = dict(processes.gathered(own))
    # Equally stable images are chosen in the order of the list.
    found = {record.image_id: known[record.image_id] for record in records}
    if processes.is_first():
        atomic.write_json(path, found)
    processes.wait()
    return found


def most_stable(stabilities: Mapping[str, float], share: float) -> tuple[str, ...]:
    """Return the ids of the stablest images, stablest first; of n images floor(share n), or 1.

    Example:
        >>> most_stable({"a": 0.5, "b": 0.9, "c": 0.5}, 0.7)
        ('b', 'a')
    """
    order = sorted(stabilities, key=lambda image_id: -stabilities[image_id])
    return tuple(order[: max(1, int(share * len(order)))])


def write_labels(
    model: SegmentationNetwork, records: Sequence[ImageRecord], how: SelfLabels, *, folder: Path
) -> None:
    """Write `<image id>.png` of class ids for each image that has none in the folder yet.

    Args:
        model: In evaluation mode.
        records: The images to label.
        how: The scales and the flip whose probabilities are averaged.
        folder: Where the label maps lie.

    Raises:
        DataError: if an image is missing or unreadable.
        DiskError: if a label map cannot be written.
    """
    look = combined(model, window=None, scales=how.scales, flip=how.flip)
    device = next(model.parameters()).device
    mine = processes.share(records)
    missing = [r for r in mine if not (folder / f"{r.image_id}.png").exists()]
    for record in progress(missing, what="label unlabeled images", total=len(missing)):
        image = read_image(record.image_path)
        label = most_likely(look, image, device=device)
        write_label(folder / f"{record.image_id}.png", label.numpy())
    processes.wait()
