"""The documentation site is built without a warning, from nothing but this repository."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zspl import plugins
from zspl.cli._parsers import parser
from zspl.settings import Train

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None,
    reason="needs mkdocs-material: make .venv/.installed",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    tags = [
        tag
        for page in pages
        for tag in re.findall(r"<(?:link|script|img|iframe)[^>]*>", page.read_text("utf-8"))
    ]

    assert len(pages) > 15
    assert [tag for tag in tags if re.search(r'(?:src|href)="?(?:https?:)?//', tag)] == []


def test_the_settings_page_tells_every_key_of_train(site):
    page = (site / "reference" / "settings.html").read_text("utf-8")

    assert [key for key in Train.model_fields if f"<code>train.{key}</code>" not in page] == []
    assert "half precision on a GPU" in page


@pytest.mark.parametrize("folder", ["methods", "features", "models.backbones"])
def test_the_plugins_page_tells_every_plugin(site, folder):
    page = (site / "reference" / "plugins.html").read_text("utf-8")
    anchors = {f"{folder.replace('.', '-')}-{name}" for name in plugins.names(f"zspl.{folder}")}

    assert [anchor for anchor in sorted(anchors) if f'id="{anchor}"' not in page] == []


def test_the_commands_page_tells_every_command(site):
    page = (site / "reference" / "commands.html").read_text("utf-8")
    commands = re.findall(r"^    (\w+) {2,}", parser().format_help(), re.MULTILINE)

    assert "annotate" in commands
    assert [name for name in commands if f">zspl {name}<" not in page] == []


def test_the_search_knows_a_setting(site):
    assert "train.crop_size" in (site / "search" / "search_index.json").read_text("utf-8")
