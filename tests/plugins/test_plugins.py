"""A folder is a registry, and every file in it keeps the contract."""

import pytest

from zspl import plugins
from zspl.errors import UnknownPluginError
from zspl.settings import Section

FOLDERS = (
    "zspl.datasets", "zspl.proposals", "zspl.features", "zspl.labeling", "zspl.methods",
    "zspl.models.backbones", "zspl.models.heads",
)  # fmt: skip
PLUGINS = [(folder, name) for folder in FOLDERS for name in plugins.names(folder)]


@pytest.mark.parametrize(("folder", "name"), PLUGINS)
def test_a_plugin_has_closed_frozen_settings_and_build(folder, name):
    module = plugins.load(folder, name)

    assert issubclass(module.Settings, Section)
    assert module.Settings.model_config["extra"] == "forbid"
    assert callable(module.build)


def test_an_unknown_plugin_lists_the_known_ones():
    with pytest.raises(UnknownPluginError, match=r"zspl/methods/ has no plugin 'x'\. Known: "):
        plugins.load("zspl.methods", "x")
