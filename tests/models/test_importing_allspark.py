"""A checkpoint of AllSpark loads strictly, without its memory, and gives its own logits."""

import runpy
from pathlib import Path

import pytest
import torch

from zspl import models
from zspl.errors import WeightsError
from zspl.models.heads._allspark import AllSpark

plain = runpy.run_path(str(Path(__file__).with_name("plain_networks.py")))
CLASSES = 5
B0 = {"name": "mit", "size": "b0", "pretrained": "best.pth"}


@pytest.fixture
def checkpoint(folder, images):
    """Write a checkpoint as AllSpark's code does; return the logits of its first image."""
    p = plain["Plain"]()
    levels = plain["mit_b0"](p, images, prefix="backbone.")
    torch.manual_seed(1)
    module = AllSpark(256, heads=2, dropout=0.1).eval()
    with torch.no_grad():
        levels = [level[:1] for level in levels]
        levels[-1] = module.rebuild(
            torch.cat([levels[-1]] * 2), labeled=1, source=lambda unlabeled: unlabeled
        )[:1]
        prefix = "decoder.decoder."
        logits = plain["segformer_decoder"](p, levels, classes=CLASSES, width=12, prefix=prefix)
        logits = plain["bilinear"](logits, images.shape[2:], corners=False)
    added = {f"decoder.allspark.{key}": tensor for key, tensor in module.state_dict().items()}
    memory = {"kv_queue": torch.randn(CLASSES, 256, 9), "queue_ptr": torch.zeros(CLASSES).long()}
    added |= {f"decoder.allspark.attn.{key}": tensor for key, tensor in memory.items()}
    state = {f"module.{key}": tensor for key, tensor in (p.state | added).items()}
    torch.save({"model": state, "epoch": 3}, folder / "best.pth")
    return logits


def build(head):
    head = {"name": head, "width": 12, "pretrained": "best.pth"}
    return models.build(backbone=B0, head=head, num_classes=CLASSES).eval()


@torch.no_grad()
def test_a_checkpoint_of_allspark_gives_its_own_logits(checkpoint, images):
    found = build("allspark")(images)[:1]
    assert (found - checkpoint).abs().max() <= 1e-5 * checkpoint.abs().max()


@pytest.mark.usefixtures("checkpoint")
def test_a_checkpoint_of_allspark_is_no_plain_segformer():
    with pytest.raises(WeightsError, match=r"another network .*AllSpark"):
        build("segformer")
