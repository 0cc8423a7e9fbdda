"""Each worker runs in its own clone, wherever the deployments were registered."""

from pathlib import Path

import pytest
import yaml

from flows.place import enter_clone
from zspl.errors import SettingsError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.orchestration


def test_a_run_enters_the_clone_of_its_worker(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ZSPL_HOME", str(tmp_path))
    assert enter_clone() == {"directory": str(tmp_path)}
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("home", ["", "/no/such/folder"])
def test_a_worker_without_a_clone_is_told_in_one_line(monkeypatch, home):
    monkeypatch.setenv("ZSPL_HOME", home)
    with pytest.raises(SettingsError, match=r"ZSPL_HOME is .*; set it to the clone"):
        enter_clone()


def test_no_path_is_written_into_a_deployment():
    text = (ROOT / "prefect.yaml").read_text()
    assert yaml.safe_load(text)["pull"] == [{"flows.place.enter_clone": {}}]
    assert "$ZSPL_HOME" not in text
