"""One optimiser step: its micro-batches, its precision, and the processes that share it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn, optim
from torch.amp.grad_scaler import GradScaler

from zspl.data.views import finished
from zspl.errors import ZsplError
from zspl.io import devices, processes
from zspl.methods import Method, Moment
from zspl.records import Loaded, each_tensor
from zspl.seeding import derive
from zspl.settings import Train
from zspl.training.checkpoints import what_stays
from zspl.training.health import Drift, strange_crop
from zspl.training.schedule import build_optimiser, set_learning_rate

Batch = Loaded
Ids = tuple[Sequence[str], Sequence[str]]
"""Of the labeled and the unlabeled images of a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """What learns, and what outlives a step of it.

    Attributes:
        model: What the method's `prepare` returned, on the device to train on.
        optimiser: Of its parameters.
        scaler: Keeps the gradients of float16 from vanishing; does nothing in other precisions.
        dtype: In which layers compute that may; float32 for all.
        drift: Watches the classes of the pseudo labels.
    """

    model: nn.Module
    optimiser: optim.Optimizer
    scaler: GradScaler
    dtype: torch.dtype
    drift: Drift

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


def build_learner(model: nn.Module, recipe: Train, drift: Drift) -> Learner:
    """Return a learner at its start.

    Raises:
        SettingsError: if the device does not compute in `train.precision`.
    """
    dtype = devices.dtype(recipe.precision)
    device = next(model.parameters()).device
    return Learner(
        model=model,
        optimiser=build_optimiser(model, recipe),
        scaler=GradScaler(device.type, enabled=dtype == torch.float16),
        dtype=dtype,
        drift=drift,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one step of a training is.

    Attributes:
        name: Of the training.
        folder: Where its last good checkpoint lies.
        moment: Which step of how many.
        factor: On the learning rates.
        seed: Of the round.
        ids: Of the labeled and the unlabeled images in this process's share; empty if unknown.
    """

    name: str
    folder: Path
    moment: Moment
    factor: float
    seed: int
    ids: Ids


def make_step(
    step: Step, learner: Learner, method: Method, recipe: Train, batch: Batch
) -> Mapping[str, Tensor]:
    """Make one optimiser step; return its loss and the parts of it, detached.

    A step minimises the mean of the losses of `accumulate` micro-batches, each of which all
    processes share. The parts are of this process's share.

    Raises:
        ZsplError: if the loss is not finite; the weights are then as before the step.
    """
    set_learning_rate(learner.optimiser, recipe, factor=step.factor)
    method = method.at(step.moment)
    learner.optimiser.zero_grad(set_to_none=True)
    numbers = []
    for index, part in enumerate(micro_batches(batch, recipe.accumulate)):
        torch.manual_seed(_seed(step, index))
        there = each_tensor(part, lambda tensor: tensor.to(learner.device, non_blocking=True))
        here = finished(there)
        with _precision(learner):
            loss = method(learner.model, *here)
        value = processes.mean(loss.total.detach())
        if not value.isfinite():
            raise ZsplError(_reason(step, float(value), batch))
        torch.autograd.backward(learner.scaler.scale(loss.total / recipe.accumulate))
        numbers.append({"loss": value, **loss.parts})
        if loss.found is not None:
            learner.drift.update(here[0].label, loss.found)
    share_gradients(learner.model)
    learner.scaler.step(learner.optimiser)
    learner.scaler.update()
    with torch.no_grad():
        method.after_step(learner.model, step.moment)
    processes.from_first(list(learner.model.buffers()))
    return _mean(numbers)


def micro_batches(batch: Batch, parts: int) -> Iterator[Batch]:
    """Yield a step's batches in `parts` equal parts, in the order of their crops."""
    if parts == 1:
        yield batch
        return
    for index in range(parts):

        def part(tensor: Tensor, index: int = index) -> Tensor:
            return tensor.chunk(parts)[index]

        yield each_tensor(batch, part)


def share_gradients(model: nn.Module) -> None:
    """Replace the gradients by their mean over all processes; a process alone keeps its own.

    A parameter that has none in any process still has none.
    """
    if processes.count() == 1:
        return
    learning = [p for p in model.parameters() if p.requires_grad]
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    has_one = found[0].new_tensor([p.grad is not None for p in learning])
    flat = processes.mean(torch.cat([has_one, *(grad.reshape(-1) for grad in found)]))
    has_one, *means = torch.split(flat, [len(learning), *(grad.numel() for grad in found)])
    for parameter, mean, used in zip(learning, means, has_one.tolist(), strict=True):
        if used:
            parameter.grad = mean.view_as(parameter).to(memory_format=torch.preserve_format)


def _seed(step: Step, micro_batch: int) -> int:
    """Return the seed of a part of a step: the first part has that of a step in one part."""
    part = micro_batch * processes.count() + processes.rank()
    purpose = ("step", step.moment.iteration)
    return derive(step.seed, *purpose, *(("part", part) if part else ()))


def _precision(learner: Learner) -> torch.autocast:
    return torch.autocast(
        learner.device.type,
        dtype=learner.dtype if learner.dtype != torch.float32 else None,
        enabled=learner.dtype != torch.float32,
    )


def _reason(step: Step, value: float, batch: Batch) -> str:
    """Return the line that says why a loss is not finite, as far as can be told."""
    labeled, unlabeled, partner = finished(batch)
    crops = {"labeled": labeled.image}
    for name, views in (("unlabeled", unlabeled), ("partner", partner)):
        if views is not None:
            crops |= {name: torch.stack([views.weak, views.strong1, views.strong2], dim=1)}
    at = f"iteration {step.moment.iteration} of {step.moment.total}"
    line = f"train {step.name}: the loss is {value} at {at}"
    stays = what_stays(step.folder)
    # Any process may hold the crop to blame, and all of them say so.
    blamed = processes.gathered(_named(step, strange_crop(crops)))
    if not blamed:
        return f"{line}; lower train.learning_rate or train.head_multiplier ({stays})"
    return f"{line}: {blamed[0]} holds values that are not finite; mend or remove it ({stays})"


def _named(step: Step, strange: tuple[str, int] | None) -> list[str]:
    """Return the words for a strange crop, if there is one."""
    if strange is None:
        return []
    name, place = strange
    ids = step.ids[0 if name == "labeled" else 1]
    return [f"image {ids[place]!r}" if ids else f"crop {place} of the {name} batch"]


def _mean(numbers: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    if len(numbers) == 1:
        return numbers[0]
    return {key: torch.stack([part[key].float() for part in numbers]).mean() for key in numbers[0]}
