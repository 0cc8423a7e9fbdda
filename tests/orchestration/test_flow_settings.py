"""What the environment may say to the flow, and what a bare check says of params.yaml."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.orchestration


@pytest.mark.parametrize("text", ["two", "0", "-1", "1.5"])
def test_a_wrong_number_of_parallel_stages_is_one_line(text):
    from flows.full_benchmark import parallel_from
    from zspl.errors import SettingsError

    with pytest.raises(SettingsError, match=r"ZSPL_PARALLEL is .* expected a whole number"):
        parallel_from(text)


def test_every_stanza_that_keeps_finished_images_is_retried():
    from flows.full_benchmark import RETRIED

    stanzas = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    resumable = ("python -m tasks propose ", "python -m tasks embed ")
    assert {
        name for name, stanza in stanzas.items() if stanza.get("cmd", "").startswith(resumable)
    } == RETRIED


def test_a_key_that_no_stage_watches_is_refused_before_dvc_runs(tmp_path):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["train"]["crop_sise"] = 32
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))

    done = subprocess.run(
        [sys.executable, "-m", "tasks", "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("zspl: params.yaml has 1 problem")
    assert "train.crop_sise" in done.stderr
