"""What the environment may say to the flow, and what a bare check says of params.yaml."""

import socket
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


@pytest.mark.filterwarnings("default")
def test_a_dask_scheduler_without_workers_is_told_instead_of_waited_for(monkeypatch):
    from flows import dask_workers
    from zspl.errors import SettingsError

    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(dask_workers, "_SECONDS_TO_COME", 0)
    alone = {"n_workers": 0, "processes": False, "dashboard_address": None}
    with (
        distributed.LocalCluster(protocol="tcp", host="127.0.0.1", **alone) as cluster,
        pytest.raises(SettingsError, match="has no worker; start one on each machine"),
    ):
        dask_workers.check(cluster.scheduler_address)


def test_what_is_no_dask_scheduler_is_told_after_a_moment(monkeypatch):
    from flows import dask_workers
    from zspl.errors import SettingsError

    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_workers, "_SECONDS_TO_ANSWER", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for address in (f"tcp://127.0.0.1:{port}", f"tls://127.0.0.1:{port}", "tcp://x", "no"):
            with pytest.raises(SettingsError, match="no Dask scheduler answers"):
                dask_workers.check(address)
