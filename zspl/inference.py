"""One image through a trained network, at the image's own size."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from zspl import models
from zspl.data.loading import MEAN, STD, normalise
from zspl.errors import WeightsError
from zspl.io import devices
from zspl.io.model_card import ModelCard
from zspl.methods import Facts, Method
from zspl.models import SegmentationNetwork
from zspl.models.pretrained import misfit, read_state
from zspl.models.views import View, combined
from zspl.sections import build_plugin
from zspl.settings import Choice, Model


def build_model(
    settings: Model, *, num_classes: int, pretrained: bool = True
) -> SegmentationNetwork:
    """Build the network that a section of `train.models` describes, on the processor.

    Args:
        settings: The backbone and the head.
        num_classes: Output channels, background included.
        pretrained: Load the backbone's pretrained weights, if its settings name any.

    Raises:
        SettingsError: if a plugin is unknown or one of its settings is wrong.
        WeightsError: if the pretrained weights are missing, damaged or of another network.
    """
    network = models.build(
        backbone=settings.backbone.model_dump(),
        head=settings.head.model_dump(),
        num_classes=num_classes,
        pretrained=pretrained,
    )
    # Convolutions run a fifth faster on a processor with the channels last in memory.
    return network.to(memory_format=torch.channels_last)


def load_model(
    settings: Model,
    path: Path,
    *,
    num_classes: int,
    adapt: Callable[[SegmentationNetwork], SegmentationNetwork] | None = None,
) -> SegmentationNetwork:
    """Load a trained network, in evaluation mode, onto the chosen device.

    Args:
        settings: The backbone and the head it was trained with.
        path: The checkpoint, such as best.safetensors of a cell.
        num_classes: Output channels, background included.
        adapt: What the training method changed in the network, its `Method.adapt`; None for
            the methods that change nothing.

    Raises:
        WeightsError: if the checkpoint is missing, damaged or of another network.
    """
    model = build_model(settings, num_classes=num_classes, pretrained=False)
    if adapt is not None:
        model = adapt(model)
    state = read_state(path)
    problem = misfit(state, model.state_dict())
    if problem is not None:
        raise WeightsError(
            f"{path}: does not fit {settings.backbone.name} + {settings.head.name} with "
            f"{num_classes} classes ({problem}); train the cell again, or name the model it is of"
        )
    model.load_state_dict(state)
    return model.to(devices.chosen()).eval()


def load_carded(path: Path, card: ModelCard) -> SegmentationNetwork:
    """Load a trained network by its card, in evaluation mode, onto the chosen device.

    Raises:
        SettingsError: if this version of zspl lacks a plugin or a setting that the card names.
        WeightsError: if the checkpoint is missing, damaged or of another network, or wants pixels
            that are normalised otherwise.
    """
    if (card.mean, card.std) != (MEAN, STD):
        raise WeightsError(
            f"{path}: wants pixels normalised with {card.mean}, {card.std}, expected {MEAN}, "
            f"{STD}; use the version of zspl it was trained with"
        )
    name, values = card.method["name"], {k: v for k, v in card.method.items() if k != "name"}
    method: Method = build_plugin("zspl.methods", name, values)
    facts = Facts(class_names=card.classes, crop_size=card.crop_size)
    network = Model(
        backbone=Choice.model_validate(card.backbone), head=Choice.model_validate(card.head)
    )
    return load_model(
        network, path, num_classes=len(card.classes), adapt=partial(method.adapt, facts=facts)
    )


def predict_logits(model: SegmentationNetwork, image: Image.Image) -> Float[Tensor, "C H W"]:
    """Return the class logits of a photo at its original size, from one forward pass.

    Args:
        model: A network in evaluation mode.
        image: 8-bit RGB of any size.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        logits: Tensor = model(normalise(image).unsqueeze(0).to(device))[0]
    return logits


def predict(model: SegmentationNetwork, image: Image.Image) -> UInt8[Tensor, "H W"]:
    """Return the most likely class id of each pixel of a photo, at its original size, on the CPU.

    Args:
        model: A network in evaluation mode.
        image: 8-bit RGB of any size.
    """
    return predict_logits(model, image).max(dim=0).indices.to(torch.uint8).cpu()


def predictor(
    model: SegmentationNetwork,
    *,
    window: int | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Callable[[Image.Image], UInt8[Tensor, "H W"]]:
    """Return what predicts photos as the section `evaluate` says.

    One pass over the whole photo at its own size is `predict`, which compares logits; all else
    compares probabilities. A photo's prediction depends on no other photo.

    Args:
        model: A network in evaluation mode.
        window: Side of the windows in pixels, at each size; None: the whole photo.
        scales: Sizes whose probabilities are averaged, over the photo's own.
        flip: Whether each size is also seen mirrored.

    Raises:
        ValueError: if the window or a scale is too small.
    """
    if window is None and tuple(scales) == (1.0,) and not flip:
        return partial(predict, model)
    look = combined(model, window=window, scales=scales, flip=flip)
    return partial(most_likely, look, device=next(model.parameters()).device)


def most_likely(look: View, image: Image.Image, *, device: torch.device) -> UInt8[Tensor, "H W"]:
    """Return the most likely class id of each pixel of a photo under a view, on the CPU.

    Args:
        look: The view.
        image: 8-bit RGB of any size.
        device: Where the network is.
    """
    with torch.inference_mode():
        probabilities = look(normalise(image).unsqueeze(0).to(device))[0]
        return probabilities.max(dim=0).indices.to(torch.uint8).cpu()
