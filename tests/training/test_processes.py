"""Two real processes that speak gloo, against one that does the same work."""

import importlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zspl.data.order import Share
from zspl.errors import SettingsError

FOLDER = Path(__file__).parent

PLANS = {
    "supervised": {"method": "supervised"},
    "unimatch": {
        "method": "unimatch",
        "settings": {"min_confidence": 0.5, "feature_dropout": 0.0},
    },
    "paper": {"method": "paper", "settings": {"feature_dropout": 0.0}},
    "micro": {"method": "supervised", "recipe": {"accumulate": 2}},
    "bytes": {
        "method": "unimatch",
        "settings": {"min_confidence": 0.5, "feature_dropout": 0.0},
        "recipe": {"views": "tensor"},
    },
}
"""What one and two processes train alike: no batch norm, no dropout, padding and void borders."""


@pytest.fixture(scope="module")
def cell():
    """Return the module that the processes run, in a place where they find it too."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("cell_of_processes")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cell):
    folder = tmp_path_factory.mktemp("processes")
    cell.write_photos(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def start(folder, cell):
    """Return a function that runs a plan in two processes and returns their exit codes."""
    # Processes that fork from one which has loaded torch start in a moment.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zspl.training.rounds", "torch._dynamo"])

    def run(plan):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ZSPL_DEVICE": "cpu"}
        shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        both = [
            context.Process(
                target=cell.run_as,
                args=({**shared, "RANK": str(k), "LOCAL_RANK": str(k)}, folder, plan),
            )
            for k in range(2)
        ]
        for process in both:
            process.start()
        for process in both:
            process.join(60)
            process.kill()
        return [process.exitcode for process in both]

    return run


@pytest.fixture(scope="module")
def trained(folder, start):
    """Return a function that trains a plan in two processes and returns their folder."""

    def run(plan):
        assert start(plan) == [0, 0]
        return folder / plan["name"]

    return run


def lines(work):
    return [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]


def assert_close(one, other):
    ours, theirs = (load_file(work / "last-of-0.safetensors") for work in (one, other))
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-5)


def assert_alike(one, other):
    assert len(lines(one)) == len(lines(other)) == 6
    for ours, theirs in zip(lines(one), lines(other), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    assert_close(one, other)


@pytest.mark.parametrize("name", PLANS)
def test_two_processes_train_what_one_trains(folder, cell, trained, name):
    cell.run(folder, {**PLANS[name], "name": f"{name}-alone"})
    both = trained({**PLANS[name], "name": name})
    assert_alike(both, folder / f"{name}-alone")
    # Every process ends with the same weights; one of them wrote the files.
    first, second = (load_file(both / f"last-of-{k}.safetensors") for k in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_two_killed_processes_continue_bit_by_bit_with_batch_norm_too(folder, start, trained):
    plan = {
        "method": "unimatch",
        "settings": {"min_confidence": 0.5},
        "batch_norm": True,
        "recipe": {"checkpoint_every": 1},
    }
    undisturbed = trained({**plan, "name": "whole"})
    assert all(start({**plan, "name": "again", "killed": 3}))
    saved = torch.load(folder / "again" / "checkpoint.pt", weights_only=True)
    assert saved["iteration"] == 2
    resumed = trained({**plan, "name": "again"})
    ours, theirs = (load_file(work / "last-of-0.safetensors") for work in (resumed, undisturbed))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert lines(resumed) == lines(undisturbed)


def test_rounds_share_the_images_that_are_judged_and_labeled(folder, cell, trained):
    settings = {"cutout": 0.0, "label_scales": (1.0,)}
    plan = {"method": "stpp", "settings": settings, "recipe": {"iterations": 3}}
    cell.run(folder, {**plan, "name": "rounds-alone"})
    alone, both = folder / "rounds-alone", trained({**plan, "name": "rounds"})
    found, expected = (json.loads((f / "stability.json").read_text()) for f in (both, alone))
    assert list(found) == list(expected) == list("cdefg")
    assert found == pytest.approx(expected, abs=0.05)
    assert sorted(path.stem for path in (both / "labels").iterdir()) == list("cdefg")
    first, second = (load_file(both / f"last-of-{k}.safetensors") for k in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)


# Each process that torchrun starts loads torch anew.
@pytest.mark.orchestration
def test_torchrun_trains_what_one_process_trains(folder, cell):
    plan = {**PLANS["supervised"], "name": "torchrun"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(FOLDER / "cell_of_processes.py"), str(folder), json.dumps(plan)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ZSPL_DEVICE": "cpu"}
    subprocess.run(command, env=environment, timeout=100, check=True, capture_output=True)
    cell.run(folder, {**plan, "name": "no-torchrun"})
    assert_alike(folder / "torchrun", folder / "no-torchrun")


@pytest.mark.parametrize("micro_batches", [1, 2, 3])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_shares_of_all_processes_are_the_batch_and_of_each_micro_batch_too(
    processes, micro_batches
):
    ids = [f"image {k}" for k in range(24)]
    shares = [
        Share(process=k, processes=processes, micro_batches=micro_batches).of(ids)
        for k in range(processes)
    ]
    assert sorted(pair for share in shares for pair in share) == sorted(enumerate(ids))
    size = 24 // micro_batches
    for part in range(micro_batches):
        places = [
            place
            for share in shares
            for place, _ in share[part * size // processes : (part + 1) * size // processes]
        ]
        assert sorted(places) == list(range(part * size, (part + 1) * size))


def test_a_batch_that_processes_cannot_share_evenly_is_refused_in_one_line():
    with pytest.raises(SettingsError, match=r"a batch of 8 images .* by 3 processes") as error:
        Share(process=0, processes=3).of("abcdefgh")
    assert "\n" not in str(error.value)
