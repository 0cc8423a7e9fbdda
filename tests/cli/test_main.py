import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from zspl import cli
from zspl.errors import DataError

ROOT = Path(__file__).parents[2]


def test_help_names_every_command_and_loads_nothing_heavy():
    code = (
        "import sys, contextlib\n"
        "from zspl.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print('heavy:', {'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: set()" in done.stdout
    for command in ("run", "score", "annotate", "weights", "splits"):
        assert f"zspl {command}" in done.stdout or f"    {command}" in done.stdout


def test_help_takes_less_than_a_second():
    start = time.monotonic()
    command = [sys.executable, "-m", "zspl", "score", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 1
    assert "examples:" in done.stdout


def call(monkeypatch, function):
    module = types.ModuleType("zspl.cli.weights")
    module.run = function
    monkeypatch.setitem(sys.modules, "zspl.cli.weights", module)
    return cli.main(["weights", "path", "x"])


def raising(error):
    def function(arguments):
        raise error

    return function


def test_a_problem_the_user_can_fix_is_one_line_and_exit_code_2(monkeypatch, capsys):
    assert call(monkeypatch, raising(DataError("a.png: broken\n  in two lines"))) == 2
    assert capsys.readouterr().err == "zspl: a.png: broken in two lines\n"


def test_control_c_is_one_line_and_exit_code_130(monkeypatch, capsys):
    assert call(monkeypatch, raising(KeyboardInterrupt())) == 130
    err = capsys.readouterr().err
    assert err == "zspl: stopped; finished work stays, the same command continues\n"


def test_a_missing_extra_says_what_to_install(monkeypatch, capsys):
    error = ModuleNotFoundError("No module named 'open_clip'", name="open_clip")
    assert call(monkeypatch, raising(error)) == 2
    assert (
        capsys.readouterr().err == "zspl: needs the package open_clip; pip install 'zspl[clip]'\n"
    )


def test_a_bug_keeps_its_traceback(monkeypatch):
    with pytest.raises(ModuleNotFoundError):
        call(monkeypatch, raising(ModuleNotFoundError("No module named 'zspl.x'", name="zspl.x")))


def test_without_a_command_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == 2
    assert "usage: zspl" in capsys.readouterr().err


def test_run_names_a_missing_params_file(tmp_path, capsys):
    assert cli.main(["run", "prepare", "--params", str(tmp_path / "params.yaml")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("zspl: params.yaml: cannot be read")
    assert err.count("\n") == 1
    assert cli.main(["run", "prepare", "--params", str(tmp_path / "gone" / "params.yaml")]) == 2


@pytest.mark.parametrize("argument", ["shard", "=1"])
def test_run_refuses_what_is_no_key_and_value(argument, capsys):
    assert cli.main(["run", "propose", argument]) == 2
    assert f"expected KEY=VALUE, got '{argument}'" in capsys.readouterr().err


def test_run_works_in_the_folder_of_params_yaml_with_a_changed_setting(tmp_path, capsys):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    before = Path.cwd()
    changes = [
        "prepare.dataset.num_train=20",
        "prepare.dataset.num_val=2",
        "prepare.splits=[labeled_5]",
        "label.calibration_split=labeled_5",
        "cells.splits=[labeled_5]",
        "train.models.small.backbone.name=mobilenetv2_100",
        "paths.out=made",
    ]
    sets = [word for change in changes for word in ("--set", change)]
    code = cli.main(["run", "prepare", "--params", str(tmp_path / "params.yaml"), *sets])
    assert code == 0, capsys.readouterr().err
    assert (tmp_path / "made" / "data" / "records.jsonl").exists()
    assert Path.cwd() == before
    assert '"images": 22.0' in capsys.readouterr().out


def test_splits_lists_the_official_ones_with_their_sizes(capsys):
    assert cli.main(["splits", "list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["labeled_92", "92"] in lines
    assert ["train_aug", "10582"] in lines


def test_shared_data_gives_the_published_score_of_transcam(capsys):
    shared = ROOT / os.environ.get("ZSPL_SHARED", "../shared") / "data" / "voc_labels"
    if not shared.is_dir():
        pytest.skip("the VOC masks are not here; set ZSPL_SHARED")
    labels = shared / "SegmentationClass"
    command = ["score", "--predictions", str(shared / "PseudoLabelsTransCAM")]
    assert cli.main([*command, "--labels", str(labels)]) == 0
    assert "mIoU 70.14 %" in capsys.readouterr().out
