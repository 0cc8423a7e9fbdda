import pytest

from zspl import plugins
from zspl.datasets import Dataset
from zspl.io.classes import ClassTable


@pytest.fixture(params=plugins.names("zspl.datasets"))
def dataset(request):
    module = plugins.load("zspl.datasets", request.param)
    return module.build(module.Settings())


def test_a_data_set_has_classes_images_and_splits(dataset):
    assert isinstance(dataset, Dataset)
    assert isinstance(dataset.table, ClassTable)
    assert dataset.table.names[0] == "background"
    assert dataset.table.source_ids[0] == 0
    assert dataset.table.source_ids[255] == 255
