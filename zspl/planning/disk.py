"""Bytes that stages write, counted where the settings tell them."""

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from zspl import models
from zspl.methods import Facts, Method
from zspl.models import SegmentationNetwork
from zspl.sections import build_plugin, plugin_settings
from zspl.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """What is known of a network without its weights.

    Attributes:
        bytes: Of a checkpoint, in float32.
        gflop: Of a forward pass over one square crop.
    """

    bytes: int
    gflop: float


class Networks:
    """The networks of a benchmark, each built once, with random weights."""

    def __init__(self, settings: Settings, class_names: tuple[str, ...]) -> None:
        self._settings = settings
        self._facts = Facts(class_names=class_names, crop_size=settings.train.crop_size)
        self._counted: dict[str, float] = {}
        self._built = lru_cache(maxsize=None)(self._network)
        self.of = lru_cache(maxsize=None)(self._of)

    def _of(self, model: str, method: str) -> Network:
        """Return the network that a method evaluates.

        Raises:
            SettingsError: if a setting of it is wrong.
        """
        train = self._settings.train
        network = self._built(model)
        # What a method adds to a network costs space; its operations hardly count.
        built: Method = build_plugin("zspl.methods", method, train.methods[method])
        state = built.adapt(copy.deepcopy(network), self._facts).state_dict()
        size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        return Network(bytes=size, gflop=self._gflop(model, network))

    def _network(self, model: str) -> SegmentationNetwork:
        chosen = self._settings.train.models[model]
        return models.build(
            backbone=chosen.backbone.model_dump(),
            head=chosen.head.model_dump(),
            num_classes=len(self._facts.class_names),
            pretrained=False,
        )

    def _gflop(self, model: str, network: SegmentationNetwork) -> float:
        if model not in self._counted:
            side = self._settings.train.crop_size
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                copy.deepcopy(network).eval().to("meta")(
                    torch.empty(1, 3, side, side, device="meta")
                )
            self._counted[model] = counter.get_total_flops() / 1e9
        return self._counted[model]


def features_bytes(encoder: str, section: dict[str, Any]) -> float | None:
    """Return the bytes of one image's dense features, None where only a run tells."""
    chosen = plugin_settings("zspl.features", encoder, section).model_dump()
    if chosen.get("model") in (None, "tiny"):
        return None
    import open_clip

    config = open_clip.get_model_config(chosen["model"])
    patch = (config or {}).get("vision_cfg", {}).get("patch_size")
    if config is None or not isinstance(patch, int):
        return None
    side = (chosen["image_size"] or 448) // patch
    return float(side * side * config["embed_dim"] * 2)  # float16
