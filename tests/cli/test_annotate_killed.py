"""A run that is killed at any moment ends with the same bytes as an undisturbed one."""

import json
import os
import subprocess
import sys

import numpy as np
from PIL import Image

# One process imports everything once; the runs are forks of it, so that a kill costs no start.
SCRIPT = """
import json, os, random, signal, sys, time
from pathlib import Path
import open_clip, skimage.segmentation, zspl.cli.annotate, zspl.features.gem, zspl.proposals.sam
from zspl.cli import main

photos, root = map(Path, sys.argv[1:3])
chance = random.Random(int(sys.argv[3]))

def start(out):
    if child := os.fork():
        return child
    sys.stdout = sys.stderr = open(os.devnull, "w")
    command = ["annotate", "--images", photos, "--classes", "zebra, brick", "--out", out]
    os._exit(main([*map(str, command), "--sam", "tiny", "--clip", "tiny", "--export", "coco"]))

def finished(out):
    return len(list(Path(out).glob("facts/**/*.json")))

codes, seen = [os.waitstatus_to_exitcode(os.waitpid(start(root / "whole"), 0)[1])], []
for _ in range(5):
    child, out = start(root / "killed"), root / "killed"
    enough = finished(out) + chance.randint(1, 2)
    while finished(out) < enough and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.15))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seen.append(finished(out))
codes.append(os.waitstatus_to_exitcode(os.waitpid(start(root / "killed"), 0)[1]))
print(json.dumps({"codes": codes, "seen": seen}))
"""


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_five_kills_at_random_moments_change_no_byte(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(16):
        path = tmp_path / "photos" / f"d{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(coarse).resize((60, 48), Image.Resampling.NEAREST).save(path)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"broken")

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "photos", tmp_path, "7"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ZSPL_DEVICE": "cpu"},
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["codes"] == [1, 1]
    assert told["seen"] == sorted(told["seen"])
    assert 0 < told["seen"][0] < told["seen"][-1] <= 16
    whole, killed = content(tmp_path / "whole"), content(tmp_path / "killed")
    assert sorted(whole) == sorted(killed)
    assert [name for name in whole if whole[name] != killed[name]] == []
    assert sum(name.startswith("labels/") for name in whole) == 16
    assert b"broken.jpg" in whole["quarantine.csv"]
