"""The optimiser, and its learning rate at each iteration (methods.md 2.1)."""

import math

from torch import nn, optim

from zspl.settings import Train


def poly_factor(iteration: int, *, total: int, power: float) -> float:
    """Return the factor on the learning rate at an iteration, counted from 0.

    The official code sets lr (1 - t/T)^0.9 after the step of iteration t, so iterations 0 and 1
    both run at the full rate.

    Example:
        >>> [poly_factor(t, total=4, power=1.0) for t in range(4)]
        [1.0, 1.0, 0.75, 0.5]
    """
    return math.pow(1 - max(iteration - 1, 0) / total, power)


def build_optimiser(model: nn.Module, recipe: Train) -> optim.Optimizer:
    """Return the optimiser: the backbone at its rate, all else at `head_multiplier` times it.

    A parameter is the backbone's if one part of its name is `backbone`. Weight decay applies to
    every parameter, biases and batch norm included; one that needs no gradient, such as a
    teacher's, is left out.
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups["backbone" in name.split(".")].append(parameter)
    rated = [
        {"params": groups[True], "lr": recipe.learning_rate},
        {"params": groups[False], "lr": recipe.learning_rate * recipe.head_multiplier},
    ]
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, 0.999)
        return optim.AdamW(rated, betas=betas, weight_decay=recipe.weight_decay)
    return optim.SGD(rated, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def set_learning_rate(optimiser: optim.Optimizer, recipe: Train, *, factor: float) -> None:
    """Set both groups to their initial rate times `factor`."""
    for group, multiplier in zip(
        optimiser.param_groups, (1.0, recipe.head_multiplier), strict=True
    ):
        group["lr"] = recipe.learning_rate * multiplier * factor
