"""How a checkpoint differs from a network is said by the first tensor, not by torch."""

import pytest
import torch
from torch import nn

from zspl import models
from zspl.errors import WeightsError
from zspl.models.pretrained import misfit

COMPACT = {"name": "compact", "widths": (4, 6, 8, 8)}
HEAD = {"name": "deeplabv3plus", "width": 8, "low_width": 4}


def test_a_state_that_fits_differs_in_nothing():
    module = nn.Linear(2, 3)
    assert misfit(module.state_dict(), module.state_dict()) is None
    module.load_state_dict(module.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": None}, "lacks 1 of 2 tensors (first: bias)"),
        ({"x": torch.ones(1), "y": torch.ones(1)}, "holds 2 tensor(s) too many (first: x)"),
        ({"weight": torch.ones(4, 2)}, "weight has shape (4, 2), expected (3, 2)"),
    ],
)
def test_the_first_difference_is_named(changes, message):
    module = nn.Linear(2, 3)
    state = {**module.state_dict(), **changes}
    state = {key: tensor for key, tensor in state.items() if tensor is not None}
    assert misfit(state, module.state_dict()) == message
    with pytest.raises(RuntimeError):
        module.load_state_dict(state)


def test_pretrained_weights_that_are_no_numbers_are_refused_by_name(folder):
    trained = models.build(backbone=COMPACT, head=HEAD, num_classes=3)
    with torch.no_grad():
        trained.head.reduce[0].weight[0] = float("nan")
    torch.save(trained.state_dict(), folder / "best.pth")
    head = {**HEAD, "pretrained": "best.pth"}
    with pytest.raises(WeightsError, match=r"reduce\.0\.weight of the head holds .* not finite"):
        models.build(backbone=COMPACT, head=head, num_classes=3)
