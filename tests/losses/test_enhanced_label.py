"""Equation 7 and CutMix commute (methods.md 2.6, question 2), and eq. 7 is what it says."""

import torch

from zspl.data.cutmix import paste
from zspl.losses import enhanced_label


def maps(seed, *, crops=3, classes=4, side=9):
    draw = torch.Generator().manual_seed(seed)
    zero_shot = torch.randint(0, classes, (crops, side, side), generator=draw)
    zero_shot[torch.rand(crops, side, side, generator=draw) < 0.2] = 255
    return zero_shot, torch.randn(crops, classes, side, side, generator=draw) * 2


def test_pasting_enhanced_labels_is_enhancing_what_was_pasted():
    (zero_shot, weak), (other, partner) = maps(0), maps(1)
    box = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(2)) < 0.4
    first = paste(
        enhanced_label(zero_shot, weak, min_confidence=0.7),
        enhanced_label(other, partner, min_confidence=0.7),
        box,
    )
    pasted = paste(zero_shot, other, box), paste(weak, partner, box)
    assert torch.equal(first, enhanced_label(*pasted, min_confidence=0.7))
    assert len(first.unique()) == 5


def test_every_pixel_takes_the_models_class_from_the_confidence_on_else_the_zero_shot_label():
    zero_shot, weak = maps(3)
    found, by_model = enhanced_label(zero_shot, weak, min_confidence=0.7), 0
    for b, y, x in torch.cartesian_prod(*map(torch.arange, zero_shot.shape)).tolist():
        p = weak[b, :, y, x].softmax(0)
        sure = p.max() >= 0.7
        by_model += int(sure)
        assert found[b, y, x] == (p.argmax() if sure else zero_shot[b, y, x])
    assert 0 < by_model < zero_shot.numel()
