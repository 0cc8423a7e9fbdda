"""Trees of classes, and a network that predicts every node of one.

The nodes are the K classes, then the P groups; V = K + P. A pixel is of exactly one class, hence
of exactly the groups above it: the path of that class.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zspl.errors import SettingsError, suggestion
from zspl.models.network import SegmentationNetwork

Groups = Mapping[str, Sequence[str]]
"""Group -> its members, which are classes or other groups; what no group names is at the top."""

SHIPPED = ("pascal_voc", "coco", "cityscapes")
"""Files of hierarchies/ that say of a benchmark's classes which groups they form."""

CLASSIFIER = "classifier"
"""What every decoder calls its last convolution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hierarchy:
    """A tree of classes: `paths[k, v]` tells whether a pixel of class k is also of node v."""

    nodes: tuple[str, ...]
    paths: Bool[Tensor, "K V"]


def hierarchy_of(class_names: Sequence[str], groups: Groups) -> Hierarchy:
    """Return the tree of some classes; without groups each class is at the top.

    Raises:
        SettingsError: if a member is neither class nor group or is in two groups, a group has no
            members or the name of a class, or a group is above itself.
    """
    for group, members in groups.items():
        if group in class_names:
            raise SettingsError(f"hierarchy: the group {group!r} is named like a class; rename it")
        if not members:
            raise SettingsError(f"hierarchy: the group {group!r} has no members; leave it out")
    nodes = (*class_names, *groups)
    parents = _parents(nodes, groups)
    paths = torch.zeros(len(class_names), len(nodes), dtype=torch.bool)
    for place, name in enumerate(nodes):
        path = _path(name, parents)
        if place < len(class_names):
            paths[place, [nodes.index(above) for above in path]] = True
    return Hierarchy(nodes=nodes, paths=paths)


def _parents(nodes: Sequence[str], groups: Groups) -> dict[str, str]:
    parents: dict[str, str] = {}
    for group, members in groups.items():
        for member in members:
            if member not in nodes:
                raise SettingsError(
                    f"hierarchy: {group} holds {member!r}, which is neither a class nor a group. "
                    f"{suggestion(member, nodes)}"
                )
            if member in parents:
                raise SettingsError(
                    f"hierarchy: {member!r} is in {parents[member]} and in {group}; choose one"
                )
            parents[member] = group
    return parents


def _path(name: str, parents: Mapping[str, str]) -> list[str]:
    path = [name]
    while path[-1] in parents:
        path.append(parents[path[-1]])
        if path[-1] in path[:-1]:
            raise SettingsError(f"hierarchy: {' < '.join(path)} goes in a circle; break it")
    return path


def shipped_groups(class_names: Sequence[str]) -> Groups | None:
    """Return the groups of the first shipped benchmark that knows every class, or None.

    Classes that are not there are left out, and so is a group that is left with one class.

    Example:
        >>> shipped_groups(("background", "cat", "dog", "car", "person"))
        {'animal': ('cat', 'dog')}
        >>> shipped_groups(("background", "unicorn")) is None
        True
    """
    for name in SHIPPED:
        file = resources.files("zspl.models") / "hierarchies" / f"{name}.json"
        tree = json.loads(file.read_text(encoding="utf-8"))
        known = {*tree["top"], *(member for group in tree["groups"].values() for member in group)}
        if known.issuperset(class_names):
            present = {
                group: tuple(member for member in members if member in class_names)
                for group, members in tree["groups"].items()
            }
            return {group: members for group, members in present.items() if len(members) > 1}
    return None


class HierarchicalNetwork(SegmentationNetwork):
    """A network with a logit per node, whose logit of a class is the sum along its path.

    With independent nodes of probability sigmoid(z) the softmax of these sums is the probability
    of each class, given that the pixel is of exactly one.
    """

    paths: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, hierarchy: Hierarchy) -> None:
        super().__init__(backbone, head)
        self.register_buffer("paths", hierarchy.paths.float(), persistent=False)

    def nodes(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B V H W"]:
        """Return the logit of every node at the size of the images."""
        return super().decode(self.encode(images), (images.shape[-2], images.shape[-1]))

    def decode(
        self, features: Sequence[Tensor], size: tuple[int, int]
    ) -> Float[Tensor, "B K height width"]:
        """Return class logits at `size` = (height, width): sums along the paths."""
        return path_sums(super().decode(features, size), self.paths)


def path_sums(
    nodes: Float[Tensor, "B V H W"], paths: Float[Tensor, "K V"]
) -> Float[Tensor, "B K H W"]:
    """Return the sum of a pixel's node logits along the path of each class.

    Args:
        nodes: The logits.
        paths: 1 where a node is on a class's path, else 0.
    """
    # In half precision the order of classes would change where their sums are close.
    with torch.autocast(nodes.device.type, enabled=False):
        return torch.einsum("kv,bvhw->bkhw", paths.to(nodes.dtype), nodes)


def widened(network: SegmentationNetwork, hierarchy: Hierarchy) -> HierarchicalNetwork:
    """Return the network with an output per node; the outputs of the classes stay what they are.

    Raises:
        SettingsError: if the decoder does not end in one convolution named `classifier`.
    """
    classes, count = hierarchy.paths.shape
    last = [
        (name, module)
        for name, module in network.head.named_modules()
        if name.rpartition(".")[2] == CLASSIFIER
    ]
    name, old = last[0] if len(last) == 1 else ("", None)
    if not isinstance(old, nn.Conv2d) or old.out_channels != classes:
        raise SettingsError(
            f"a tree of classes needs a decoder whose last convolution is named {CLASSIFIER!r} "
            f"and has {classes} outputs; {type(network.head).__name__} has none, choose another"
        )
    if old.kernel_size != (1, 1):
        raise SettingsError(f"{CLASSIFIER}: expected a 1x1 convolution, got {old.kernel_size}")
    new = nn.Conv2d(old.in_channels, count, 1, bias=old.bias is not None)
    with torch.no_grad():
        new.weight[:classes] = old.weight
        if new.bias is not None and old.bias is not None:
            new.bias[:classes] = old.bias
    network.head.get_submodule(name.rpartition(".")[0]).register_module(CLASSIFIER, new)
    return HierarchicalNetwork(network.backbone, network.head, hierarchy)
