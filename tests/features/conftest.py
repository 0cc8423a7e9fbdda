"""Small CLIPs whose attention is sharp enough that methods differ by more than float noise."""

import open_clip
import pytest
import torch

from zspl.features import _open_clip
from zspl.features._open_clip import LoadedClip

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture
def sharp_clip():
    """Return a function that builds a CLIP with random weights of a trained one's size."""

    def build(*, seed=0, quick_gelu=False, layers=6, image_size=32, **vision):
        torch.manual_seed(seed)
        model = open_clip.CLIP(
            embed_dim=24,
            vision_cfg={
                "image_size": image_size, "layers": layers, "width": 32, "head_width": 8,
                "patch_size": 8, **vision,
            },
            text_cfg={
                "context_length": 77, "width": 16, "heads": 2, "layers": 1, "vocab_size": 49408,
            },
            quick_gelu=quick_gelu,
        ).eval()  # fmt: skip
        with torch.no_grad():
            for name, weight in model.visual.named_parameters():
                if name.endswith("bias"):
                    weight.normal_(std=0.3)
                elif "ln_" in name:
                    weight.copy_(1 + 0.3 * torch.randn_like(weight))
                elif "in_proj_weight" in name:
                    weight.mul_(3)
        return model.requires_grad_(requires_grad=False)

    return build


@pytest.fixture
def serve(monkeypatch):
    """Return a function that makes every encoder load the given model, on the CPU."""
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    tokenizer = open_clip.get_tokenizer("ViT-B-16")

    def give(model):
        loaded = LoadedClip(model=model, tokenizer=tokenizer, mean=MEAN, std=STD)
        monkeypatch.setattr(_open_clip, "load", lambda _: loaded)

    return give
