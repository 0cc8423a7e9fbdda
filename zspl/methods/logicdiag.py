"""LogicDiag (Liang et al. 2023): labels that keep the rules of a tree of classes (methods.md 3.6).

The network predicts by sigmoid not only each class but each group of classes above it. What a
teacher, the moving average of the student, claims of a pixel (every node above 1/2) can break
three kinds of rules:

    composition     what is of a class is of its group
    decomposition   what is of a group is of one of its members; everything is something
    exclusion       what is of one member of a group is of no other

A diagnosis is a smallest set of claims whose reversal breaks no rule any more. The likeliest one,
by the product of the probabilities of what is claimed after it (a fuzzy "and"), corrects the
pixel, and the corrected path teaches the student. There is no threshold of confidence.

No search is needed. The claims that break no rule are exactly the paths of the classes, so the
diagnosis that leads to class k has a likelihood proportional to exp(sum of the logits on its
path), and the likeliest of all is a smallest one: each reversal costs likelihood.

There is no public code. Unlike the paper, whose formulas for it are not known here, the weight of
a corrected pixel is the likelihood of its diagnosis among all that lead to a class. Also decided
here: the student that is evaluated, one strong view with CutMix, a loss summed over the nodes,
and the unlabeled weight.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from zspl.data.cutmix import paste
from zspl.losses import count_classes, pixels
from zspl.methods import Ensemble, Facts, Method, Moment
from zspl.methods._streams import present, share, turned
from zspl.models import SegmentationNetwork
from zspl.models.hierarchy import (
    HierarchicalNetwork,
    hierarchy_of,
    path_sums,
    shipped_groups,
    widened,
)
from zspl.models.pretrained import notify
from zspl.records import IGNORE_INDEX, LabeledBatch, StepLoss, UnlabeledBatch
from zspl.settings import Section

NEEDS = frozenset({"labeled", "unlabeled"})


class Settings(Section):
    """Settings of the method; the paper's own values are not known."""

    hierarchy: Literal["shipped", "flat"] | dict[str, tuple[str, ...]] = Field(
        default="shipped",
        description="Groups of classes or groups; shipped: those of VOC, COCO or Cityscapes, flat "
        "if none of them knows all classes; flat: no groups, each class excludes all others.",
    )
    unlabeled_weight: float = Field(default=1.0, ge=0)
    average: float = Field(
        default=0.999, ge=0, lt=1, description="Share of the teacher that a step keeps, at most."
    )
    weigh: bool = Field(
        default=True, description="A pixel counts by the likelihood of its diagnosis; false: fully."
    )


class Taught(Ensemble):
    """The student, which is evaluated, and its moving average, which teaches it."""

    deployed: HierarchicalNetwork

    def __init__(self, student: HierarchicalNetwork) -> None:
        super().__init__(student)
        self.teacher = copy.deepcopy(student).requires_grad_(requires_grad=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What the likeliest diagnosis makes of each pixel.

    Attributes:
        label: The class whose path is claimed after it.
        likelihood: Its likelihood among the diagnoses of all classes, in (0, 1].
        conflict: True where the claims broke a rule before it.
    """

    label: Int64[Tensor, "B H W"]
    likelihood: Float[Tensor, "B H W"]
    conflict: Bool[Tensor, "B H W"]


class LogicDiag(Method):
    """L = L_x + weight L_u, binary cross-entropies summed over the nodes of the tree."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def adapt(self, network: SegmentationNetwork, facts: Facts) -> SegmentationNetwork:
        """Return the network with an output for each group as well.

        Raises:
            SettingsError: if the tree does not fit the classes, or the decoder cannot be widened.
        """
        chosen, names = self._settings.hierarchy, facts.class_names
        groups = {} if isinstance(chosen, str) else chosen
        if chosen == "shipped":
            found = shipped_groups(names)
            groups = {key: tuple(members) for key, members in (found or {}).items()}
            if found is None:
                notify(
                    f"method logicdiag: no shipped hierarchy knows the classes {', '.join(names)}; "
                    "each excludes all others (train.methods.logicdiag.hierarchy takes groups)"
                )
        return widened(network, hierarchy_of(names, groups))

    def prepare(
        self,
        network: SegmentationNetwork,
        another: Callable[[], SegmentationNetwork],  # noqa: ARG002 - part of the Method protocol
        facts: Facts,  # noqa: ARG002 - part of the Method protocol
    ) -> Taught:
        """Return the student and a teacher that begins as its copy.

        Raises:
            ValueError: if the network predicts no groups.
        """
        if not isinstance(network, HierarchicalNetwork):
            raise ValueError("this method needs a network that its own `adapt` returned")
        return Taught(network)

    def __call__(
        self,
        model: Taught,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step; labeled and strong crops form one training batch.

        Raises:
            ValueError: if there is no unlabeled batch.
        """
        unlabeled = present(unlabeled)
        model.train()
        teacher, paths, box = model.teacher.eval(), model.deployed.paths, unlabeled.box1
        with torch.no_grad():
            weak = teacher.nodes(unlabeled.weak)
            found = diagnose(weak, paths)
            maps = (found.label, found.likelihood, unlabeled.padding, unlabeled.strong1)
            if partner is None:
                pasted = tuple(turned(values) for values in maps)
            else:
                source = diagnose(teacher.nodes(partner.weak), paths)
                pasted = (source.label, source.likelihood, partner.padding, partner.strong1)
        label, weight, padding, strong = (
            paste(target, values, box) for target, values in zip(maps, pasted, strict=True)
        )
        valid = ~padding
        nodes = model.deployed.nodes(torch.cat([labeled.image, strong]))
        own, other = torch.split(nodes, [len(labeled.image), len(strong)])
        known = labeled.label != IGNORE_INDEX
        each = path_loss(own, labeled.label.masked_fill(~known, 0), paths)
        taught = path_loss(other, label, paths)
        if self._settings.weigh:
            taught = taught * weight
        losses = {"labeled": _mean(each, known), "unlabeled": _mean(taught, valid)}
        parts = {name: loss.detach() for name, loss in losses.items()}
        inside = ~unlabeled.padding
        parts["conflict_share"] = share(found.conflict, among=inside)
        changed = weak[:, : len(paths)].argmax(dim=1) != found.label
        parts["corrected_share"] = share(changed, among=inside)
        total = losses["labeled"] + self._settings.unlabeled_weight * losses["unlabeled"]
        taught_classes = count_classes(found.label, inside, classes=len(paths))
        return StepLoss(total=total, parts=parts, found=taught_classes)

    def after_step(self, model: Taught, moment: Moment) -> None:
        """Move the teacher towards the student, by a share of 1 / (t + 1) at first."""
        kept = min(1 - 1 / (moment.iteration + 1), self._settings.average)
        pairs = zip(model.teacher.parameters(), model.deployed.parameters(), strict=True)
        for mean, new in pairs:
            mean.lerp_(new, 1 - kept)
        for old, current in zip(model.teacher.buffers(), model.deployed.buffers(), strict=True):
            old.copy_(current)


def _mean(each: Float[Tensor, "B H W"], among: Bool[Tensor, "B H W"]) -> Float[Tensor, ""]:
    return (each * among).sum() / pixels(among)


def diagnose(nodes: Float[Tensor, "B V H W"], paths: Float[Tensor, "K V"]) -> Diagnosis:
    """Return the likeliest diagnosis of what each pixel's nodes claim.

    Args:
        nodes: Logits; a node is claimed from 0 on.
        paths: 1 where a node is on a class's path, else 0.
    """
    likelihood, label = path_sums(nodes.float(), paths).softmax(dim=1).max(dim=1)
    corrected = paths.bool()[label].permute(0, 3, 1, 2)
    return Diagnosis(
        label=label, likelihood=likelihood, conflict=((nodes >= 0) != corrected).any(dim=1)
    )


def path_loss(
    nodes: Float[Tensor, "B V H W"], label: Int64[Tensor, "B H W"], paths: Float[Tensor, "K V"]
) -> Float[Tensor, "B H W"]:
    """Return the binary cross-entropy of each pixel, summed over the nodes.

    Args:
        nodes: Logits.
        label: Class ids, whose path is claimed and nothing else.
        paths: 1 where a node is on a class's path, else 0.
    """
    claimed = path_sums(nodes, paths).gather(1, label.unsqueeze(1)).squeeze(1)
    return F.softplus(nodes).sum(dim=1) - claimed


def build(settings: Settings) -> Method:
    """Build the method."""
    return LogicDiag(settings)
