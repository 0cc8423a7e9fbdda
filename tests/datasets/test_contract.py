import pytest

from zspl import plugins
from zspl.datasets import Dataset
from zspl.io.classes import ClassTable

# Settings without which a data set means nothing.
NEEDED = {"folder": {"classes": ["crop", "weed"]}}


@pytest.fixture(params=plugins.names("zspl.datasets"))
def dataset(request):
    module = plugins.load("zspl.datasets", request.param)
    return module.build(module.Settings(**NEEDED.get(request.param, {})))


def test_a_data_set_has_classes_images_and_splits(dataset):
    assert isinstance(dataset, Dataset)
    assert isinstance(dataset.table, ClassTable)
    assert dataset.table.source_ids[255] == 255


def test_class_0_is_the_background_or_has_a_prompt_of_its_own(dataset):
    table = dataset.table
    if table.has_background:
        assert table.names[0] == "background"
        assert table.source_ids[0] == 0
    else:
        assert len(table.prompts) == table.num_classes
        assert 0 in table.text_classes
