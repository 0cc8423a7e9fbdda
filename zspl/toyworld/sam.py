"""A tiny Segment Anything model for the toy world.

The classes are the ones of `segment_anything`, only smaller; the weights shipped in this package
were made by `python -m zspl.toyworld.pretrain_sam`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from zspl.errors import WeightsError
from zspl.io import atomic

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

IMAGE_SIZE = 96
PATCH_SIZE = 8
WIDTH = 128
WEIGHTS = Path(__file__).parent / "weights" / "tiny_sam.safetensors"

GENERATOR_SETTINGS: dict[str, Any] = {
    "points_per_side": 8,
    "points_per_batch": 64,
    "pred_iou_thresh": 0.7,
    "stability_score_thresh": 0.7,
}
"""Settings of `SamAutomaticMaskGenerator` that suit these weights, tuned on other pictures."""


def build() -> "Sam":
    """Make the tiny `segment_anything.modeling.Sam` with untrained weights.

    It sees 96 x 96 pixels as 12 x 12 patches (global attention everywhere) and draws masks of
    48 x 48 pixels, which `Sam.postprocess_masks` enlarges. Draws from torch's global generator.
    """
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    grid = IMAGE_SIZE // PATCH_SIZE
    encoder = ImageEncoderViT(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        embed_dim=WIDTH,
        depth=4,
        num_heads=4,
        out_chans=WIDTH,
    )
    prompts = PromptEncoder(
        embed_dim=WIDTH,
        image_embedding_size=(grid, grid),
        input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
        mask_in_chans=16,
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=4, mlp_dim=256)
    decoder = MaskDecoder(
        transformer_dim=WIDTH,
        transformer=transformer,
        iou_head_hidden_dim=WIDTH,
    )
    return Sam(image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder)


def save_sam(sam: nn.Module, path: Path) -> None:
    """Write the weights of a tiny SAM as float16 safetensors.

    Args:
        sam: A model made by `build`.
        path: The file to write; its folder is made if missing.
    """
    halves = {name: value.detach().half().contiguous() for name, value in sam.state_dict().items()}
    atomic.write_bytes(path, save(halves))


def load_sam(path: Path = WEIGHTS) -> "Sam":
    """Load the tiny SAM with its trained weights, in float32 and ready for inference.

    Args:
        path: A file written by `save_sam`; the one shipped in the package by default.

    Raises:
        WeightsError: The file is missing, damaged or does not fit the model.
    """
    if not path.is_file():
        raise WeightsError(
            f"{path}: expected the weights of the tiny SAM, found no file; "
            "reinstall the package or run python -m zspl.toyworld.pretrain_sam"
        )
    sam = build()
    try:
        weights = {name: value.float() for name, value in load_file(path).items()}
        sam.load_state_dict(weights, strict=True)
    except (SafetensorError, OSError, RuntimeError, LookupError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{path}: expected the weights of the tiny SAM, got others "
            f"({reason[:200]}); reinstall the package"
        ) from error
    return sam.eval().requires_grad_(requires_grad=False).to(torch.float32)
