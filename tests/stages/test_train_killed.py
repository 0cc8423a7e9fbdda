"""A training that is killed five times at random moments ends with the bytes of an undisturbed one.

The undisturbed one is the command in a process of its own; the killed ones are forks of one
process that has imported everything, so that a kill costs no start.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

tiny = runpy.run_path(str(Path(__file__).with_name("tiny_project.py")))

KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch._dynamo  # what optimisers import
import zspl.cli.run, zspl.models.backbones.compact, zspl.models.heads.deeplabv3plus
import zspl.stages.train
from zspl.cli import main

params, method = Path(sys.argv[1]), sys.argv[2]
chance, moments = random.Random(sys.argv[2]), json.loads(sys.argv[3])
cell = [f"method={method}", *sys.argv[4:]]
work = params.parent / "artifacts" / ".work" / "train" / method

def start():
    if child := os.fork():
        return child
    sys.stdout = sys.stderr = open(os.devnull, "w")
    os._exit(main(["run", "train", *cell, "--params", str(params)]))

def lines(path):
    return path.read_text().splitlines()[-1:]

def progress():
    done = [json.loads(line)["iteration"] for p in work.rglob("metrics.jsonl") for line in lines(p)]
    return {"iteration": max(done, default=0), "labels": len(list(work.rglob("labels/*.png")))}

kills = []
for kind, low, high in moments:
    child, wanted = start(), chance.randint(low, high)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        try:
            if progress()[kind] >= wanted:
                break
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    kills.append({"by": os.WTERMSIG(status), **progress()})
code = os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1])
print(json.dumps({"kills": kills, "code": code}))
"""


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def command(*arguments):
    return python("-m", "zspl", *arguments)


def python(*arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ZSPL_DEVICE": "cpu"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The artifacts of `prepare`, which every training below starts from."""
    folder = tmp_path_factory.mktemp("prepared")
    command("run", "prepare", "--params", tiny["write"](folder, tiny["values"](methods={})))
    return folder / "artifacts"


@pytest.mark.orchestration
@pytest.mark.parametrize(
    ("method", "moments"),
    [
        ("unimatch", [("iteration", 1 + 10 * k, 9 + 10 * k) for k in range(5)]),
        (
            "stpp",
            [
                ("iteration", 2, 38),
                ("labels", 1, 4),  # of 6 that the first round's model writes
                ("iteration", 42, 76),
                ("labels", 7, 10),  # of 12 in all
                ("iteration", 82, 115),
            ],
        ),
    ],
)
def test_five_kills_at_random_moments_change_no_byte_of_a_training(tmp_path, data, method, moments):
    steps = {"unimatch": 60, "stpp": 40}[method]
    project = tiny["values"](
        methods={method: {}}, iterations=steps, evaluate_every=10, checkpoint_every=5
    )
    whole, killed = (tiny["write"](tmp_path / name, project) for name in ("whole", "killed"))
    for name in ("whole", "killed"):
        shutil.copytree(data, tmp_path / name / "artifacts")

    cell = (f"method={method}", *tiny["CELL"])
    command("run", "train", *cell, "--params", whole)
    told = python("-c", KILLER, killed, method, json.dumps(moments), *tiny["CELL"])

    assert told["code"] == 0
    assert [kill["by"] for kill in told["kills"]] == [9] * 5
    for kill, (kind, low, _) in zip(told["kills"], moments, strict=True):
        assert low <= kill[kind]
    in_training = [kill["iteration"] for kill in told["kills"]]
    total = steps * (3 if method == "stpp" else 1)
    assert in_training == sorted(in_training)
    assert 0 < in_training[0] <= in_training[-1] < total
    cells = [tmp_path / name / "artifacts" / "cells" for name in ("whole", "killed")]
    undisturbed, found = map(content, cells)
    assert {Path(name).name for name in undisturbed} >= {"best.safetensors", "last.safetensors"}
    assert sorted(found) == sorted(undisturbed)
    assert [name for name in found if found[name] != undisturbed[name]] == []
