"""Loading Segment Anything: the official checkpoints, MobileSAM, or a file of one's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import Tensor

from zspl.errors import WeightsError
from zspl.io import catalog, weights
from zspl.settings import Section

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

_NAMES = {
    "vit_t": "mobile_sam",
    "vit_b": "sam_vit_b",
    "vit_l": "sam_vit_l",
    "vit_h": "sam_vit_h",
}
_SIDE = 1024
_PATCH = 16


class CheckpointSettings(Section):
    """Which SAM, and which file holds it."""

    model: Literal["tiny", "vit_t", "vit_b", "vit_l", "vit_h"] = Field(
        "vit_h", description="vit_t is MobileSAM; tiny ships with the package."
    )
    checkpoint: str | None = Field(
        None, description="A file below ZSPL_WEIGHTS; null: the official one, downloaded if absent."
    )
    sha256: str | None = Field(None, description="Of `checkpoint`.")

    @model_validator(mode="after")
    def _checksum_has_a_file(self) -> "CheckpointSettings":
        if self.sha256 is not None and self.checkpoint is None:
            raise ValueError("sha256 is of `checkpoint`; the official files have their own")
        if self.model == "tiny" and self.checkpoint is not None:
            raise ValueError("model tiny ships its weights; leave `checkpoint` null")
        return self


def load(settings: CheckpointSettings) -> "Sam":
    """Load the SAM that `settings` name, in float32 and evaluation mode, on the CPU.

    Raises:
        WeightsError: if the checkpoint is missing, has a wrong checksum or does not fit.
    """
    if settings.model == "tiny":
        from zspl.toyworld.sam import load_sam

        return load_sam()
    if settings.checkpoint is not None:
        path = weights.resolve(settings.checkpoint, sha256=settings.sha256)
    else:
        path = catalog.find(_NAMES[settings.model]).obtain()
    state = _read(path)
    sam = build(settings.model)
    try:
        sam.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path}: does not fit SAM {settings.model} "
            f"({' '.join(str(error).split())[:200]}); set propose.sam.model to what the file holds"
        ) from error
    return sam.eval().requires_grad_(requires_grad=False)


def build(model: Literal["vit_t", "vit_b", "vit_l", "vit_h"]) -> "Sam":
    """Make a SAM of published shape with random weights."""
    if model == "vit_t":
        return _mobile_sam()
    from segment_anything import sam_model_registry

    sam: Sam = sam_model_registry[model]()
    return sam


def _mobile_sam() -> "Sam":
    """Put TinyViT before the prompt encoder and mask decoder that every SAM has."""
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    from zspl.proposals._tiny_vit import OUT, TinyViT

    grid = _SIDE // _PATCH
    return Sam(
        image_encoder=TinyViT(_SIDE),
        prompt_encoder=PromptEncoder(
            embed_dim=OUT,
            image_embedding_size=(grid, grid),
            input_image_size=(_SIDE, _SIDE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=OUT, mlp_dim=2048, num_heads=8),
            transformer_dim=OUT,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )


def _read(path: Path) -> dict[str, Tensor]:
    """Read tensors by name without running code from the file."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything
        raise WeightsError(
            f"{path}: is no readable checkpoint ({' '.join(str(error).split())[:200]}); "
            "fetch it again"
        ) from error
    return state
