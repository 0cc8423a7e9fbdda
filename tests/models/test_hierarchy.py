"""Trees of classes: the shipped ones fit their data sets, and a wrong one is named."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from zspl import models
from zspl.datasets import cityscapes, coco, pascal_voc
from zspl.errors import SettingsError
from zspl.models import hierarchy
from zspl.models.hierarchy import hierarchy_of, shipped_groups, widened

CLASSES = {
    "pascal_voc": ("background", *pascal_voc.PROMPTS),
    "coco": ("background", *coco.NAMES),
    "cityscapes": tuple(cityscapes.PROMPTS),
}
COUNTS = {"pascal_voc": (21, 3), "coco": (81, 11), "cityscapes": (19, 6)}


@pytest.mark.parametrize("name", hierarchy.SHIPPED)
def test_a_shipped_tree_places_every_class_of_its_data_set_once(name):
    file = Path(hierarchy.__file__).parent / "hierarchies" / f"{name}.json"
    tree = json.loads(file.read_text())
    placed = [*tree["top"], *(m for members in tree["groups"].values() for m in members)]
    assert sorted(placed) == sorted(CLASSES[name])
    assert shipped_groups(CLASSES[name]) == {
        group: tuple(members) for group, members in tree["groups"].items()
    }
    found = hierarchy_of(CLASSES[name], shipped_groups(CLASSES[name]))
    classes, groups = COUNTS[name]
    assert found.paths.shape == (classes, classes + groups)
    assert torch.equal(found.paths[:, :classes], torch.eye(classes, dtype=torch.bool))


def test_a_path_holds_the_class_and_all_groups_above_it():
    found = hierarchy_of(("a", "b", "c"), {"pair": ("b", "c"), "all": ("a", "pair")})
    assert found.nodes == ("a", "b", "c", "pair", "all")
    assert found.paths.int().tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 1, 1], [0, 0, 1, 1, 1]]


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ({"a": ("b",)}, "'a' is named like a class"),
        ({"x": ()}, "'x' has no members"),
        ({"x": ("cart",)}, r"x holds 'cart', which is neither .* Did you mean 'cat'"),
        ({"x": ("a",), "y": ("a",)}, "'a' is in x and in y"),
        ({"x": ("y",), "y": ("x",)}, "x < y < x goes in a circle"),
    ],
)
def test_a_wrong_tree_is_named_in_one_line(groups, problem):
    with pytest.raises(SettingsError, match=problem) as error:
        hierarchy_of(("a", "b", "cat"), groups)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["deeplabv3plus", "segformer"])
def test_the_decoders_are_widened_by_the_groups(name):
    network = models.build(
        backbone={"name": "compact", "widths": (4, 6, 8, 8)},
        head={"name": name, "width": 8},
        num_classes=3,
    ).eval()
    tree = hierarchy_of(("a", "b", "c"), {"pair": ("b", "c")})
    assert widened(network, tree).nodes(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 16, 16)


def test_a_decoder_without_such_a_convolution_is_refused():
    network = models.SegmentationNetwork(nn.Identity(), nn.Conv2d(3, 3, 1))
    with pytest.raises(SettingsError, match="named 'classifier' and has 3 outputs; Conv2d has"):
        widened(network, hierarchy_of(("a", "b", "c"), {}))
