"""`zspl doctor`: each line is true, and each problem has a way out."""

import http.server
import json
import os
import runpy
import threading
from pathlib import Path

import pytest

import zspl
from zspl import cli
from zspl.cli import _doctor_machine

tiny = runpy.run_path(str(Path(__file__).parents[1] / "stages" / "tiny_project.py"))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project that lacks nothing, with no other program in the way."""
    monkeypatch.setattr(_doctor_machine, "_SERVERS", ())
    monkeypatch.setenv("PATH", f"{Path(os.sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    tiny["write"](tmp_path, tiny["values"](methods={"supervised": {}}))
    change(tmp_path, paths__source=str(ROOT / "zspl" / "toyworld"))
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "zspl").symlink_to(ROOT / "zspl")
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    return tmp_path


def change(folder, **changes):
    import yaml

    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *above, last = key.split("__")
        place = values
        for part in above:
            place = place[part]
        place[last] = value
    path.write_text(yaml.safe_dump(values))


def doctor(folder, capsys):
    code = cli.main(["doctor", "--json", "--params", str(folder / "params.yaml")])
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] == (code == 0)
    return code, found["findings"]


def about(findings, what):
    return [finding for finding in findings if finding["about"] == what]


def test_a_project_that_lacks_nothing_is_ok(project, capsys):
    code, findings = doctor(project, capsys)
    assert code == 0, [f for f in findings if f["level"] == "problem"]
    assert "32 photos to learn from" in about(findings, "data")[0]["found"]
    assert "UTF-8" in about(findings, "encoding")[0]["found"]


def test_every_problem_and_note_says_what_to_type(project, capsys):
    change(project, paths__source="gone", paths__code="nowhere")
    (project / "dvc.yaml").write_text("stages: {}\n")
    code, findings = doctor(project, capsys)
    assert code == 1
    problems = [f for f in findings if f["level"] == "problem"]
    assert {f["about"] for f in problems} == {"data", "pipeline"}
    assert all(f["fix"] for f in findings if f["level"] == "problem")
    assert f"ln -sfn {Path(zspl.__file__).parent}" in about(findings, "pipeline")[1]["fix"]


def test_a_wrong_setting_is_the_line_that_a_stage_would_give(project, capsys):
    change(project, train__crop_size=0)
    code, findings = doctor(project, capsys)
    assert code == 1
    assert "train.crop_size" in about(findings, "settings")[0]["found"]


def test_weights_are_those_that_params_yaml_needs(project, capsys):
    change(
        project,
        propose={"sam": {"model": "vit_t"}},
        embed={"gem": {"model": "ViT-B-16-quickgelu", "pretrained": "openai"}},
        train__models__tiny__backbone={"name": "resnet50s", "pretrained": "mine.safetensors"},
    )
    code, findings = doctor(project, capsys)
    lines = {f["found"]: f for f in about(findings, "weights")}
    texts = " ".join(lines)
    assert code == 1
    assert "mobile_sam: absent, downloaded at first use, 0.04 GB" in texts
    assert "ViT-B-16-quickgelu:openai" in texts
    assert "mine.safetensors: missing" in texts
    (project / "weights").mkdir()
    (project / "weights" / "mine.safetensors").write_bytes(b"x")
    (project / "weights" / "mobile_sam.pt").write_bytes(b"half of it")
    code, findings = doctor(project, capsys)
    texts = {f["found"]: f["fix"] for f in about(findings, "weights") if f["level"] == "problem"}
    assert list(texts.values()) == [
        f"rm {project / 'weights' / 'mobile_sam.pt'}; zspl weights get mobile_sam"
    ]


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_):
        pass


def test_a_port_is_free_or_it_is_told_who_answers():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        known = {"path": "/health", "start": "mlflow ui"}
        mlflow = _doctor_machine._port(port, name="MLflow", answer=b"OK", **known)
        other = _doctor_machine._port(port, name="Prefect", answer=b"true", **known)
        server.shutdown()
    free = _doctor_machine._port(port, name="MLflow", answer=b"OK", **known)
    assert (mlflow.level, mlflow.found) == ("ok", "answered by MLflow")
    assert (other.level, other.found) == ("note", "taken by something that is not Prefect")
    assert str(port) in other.fix
    assert free.found.startswith("free")


def test_elsewhere_it_looks_at_the_machine_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_doctor_machine, "_SERVERS", ())
    cli.main(["doctor"])
    assert "no params.yaml here" in capsys.readouterr().out


def test_doctor_imports_no_orchestrator(project):
    code = (
        "import sys\nfrom zspl.cli import main\nmain(['doctor'])\n"
        "print('loaded', {'dvc', 'prefect', 'mlflow', 'open_clip', 'timm'} & set(sys.modules))"
    )
    import subprocess

    done = subprocess.run(
        [os.sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=project
    )
    assert "loaded set()" in done.stdout
