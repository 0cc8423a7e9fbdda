"""A disk that fills up: one clear line, nothing finished is lost, the next run ends the same."""

import contextlib
import subprocess
from pathlib import Path

import pytest
import yaml

from zspl.cli import main
from zspl.errors import DiskError
from zspl.training.history import History

TINY = Path(__file__).parents[1] / "orchestration" / "tiny_params.yaml"
SIZE = 4 * 2**20


def project(folder):
    """A tiny benchmark up to its segments."""
    values = yaml.safe_load(TINY.read_text())
    values["paths"]["code"] = "."
    (folder / "source").mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder


def stage(folder, *words):
    return main(["run", *words, "--params", str(folder / "params.yaml")])


def prepared(folder):
    assert stage(folder, "prepare") == 0
    assert stage(folder, "propose", "proposer=superpixels", "shard=0") == 0


@pytest.fixture
def small_disk(tmp_path):
    """The artifacts folder of a project, on a disk of its own of four MiB."""
    folder = project(tmp_path / "full")
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(artifacts)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small disk here: {error}")
    yield folder
    subprocess.run(["umount", str(artifacts)], check=True)


def fill(folder, *, leave):
    """Fill the disk of `folder` but for `leave` bytes and return the file that does."""
    path = folder / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"0" * 4096):
            pass
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - leave)
    return path


def report(history, *, steps):
    for iteration in range(1, steps + 1):
        history.add({"loss": 1.0 / 3}, iteration=iteration)


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_disk_that_fills_up_while_labels_are_written_loses_nothing(tmp_path, small_disk, capsys):
    undisturbed = project(tmp_path / "undisturbed")
    for folder in (undisturbed, small_disk):
        prepared(folder)
    assert stage(undisturbed, "label", "variant=merged") == 0
    capsys.readouterr()
    artifacts = small_disk / "artifacts"
    finished = set()

    for leave in (0, 8, 24, 40):
        filler = fill(artifacts, leave=leave * 1024)
        assert stage(small_disk, "label", "variant=merged") == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "zspl:" in line]
        filler.unlink()
        assert len(lines) == 1
        assert "no disk space left" in lines[0]
        assert "free some space and run again" in lines[0]
        now = {path.name for path in (artifacts / ".work/label").rglob("*.png")}
        assert finished <= now
        finished = now
    assert finished

    assert stage(small_disk, "label", "variant=merged") == 0
    assert contents(artifacts / "labels") == contents(undisturbed / "artifacts/labels")


def test_a_disk_that_fills_up_while_a_line_is_reported_is_named(small_disk):
    path = small_disk / "artifacts" / "metrics.jsonl"
    history = History(path, iteration=0)
    filler = fill(path.parent, leave=0)

    with pytest.raises(DiskError, match=r"metrics\.jsonl: no disk space left"):
        report(history, steps=2000)

    filler.unlink()
    last = len(path.read_text().splitlines())
    History(path, iteration=last).add({"loss": 1.0}, iteration=last + 1)
    assert path.read_text().endswith('"loss": 1.0}\n')
