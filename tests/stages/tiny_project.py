"""A project as a user has one, so small that a stage takes a second: params.yaml on toyworld."""

import json
import shutil
from pathlib import Path

import torch
import yaml

from zspl.cli import main

ROOT = Path(__file__).parents[2]
BACKBONE = {"name": "compact", "widths": [4, 4, 6, 6]}
HEAD = {"name": "deeplabv3plus", "width": 6, "low_width": 4, "dilations": [2]}
CELL = ("model=tiny", "split=labeled_20", "seed=0")


def values(*, methods, **train):
    """Return the repository's params.yaml without annotation, with a tiny network and few steps."""
    found = yaml.safe_load((ROOT / "params.yaml").read_text())
    found["prepare"] |= {
        "dataset": {"name": "toyworld", "num_train": 32, "num_val": 2},
        "splits": ["labeled_20"],
        "shards": [0],
    }
    found |= {"propose": {}, "embed": {}, "embed_segments": {}}
    found["label"] = {"calibration_split": "labeled_20", "variants": {}}
    none = {"methods": [], "label_methods": [], "labels": []}
    found["cells"] |= {**none, "models": ["tiny"], "splits": ["labeled_20"], "seeds": [0]}
    found["train"] |= {
        "crop_size": 32,
        "batch_labeled": 2,
        "batch_unlabeled": 2,
        "iterations": 6,
        "evaluate_every": 3,
        "checkpoint_every": 2,
        "methods": methods,
        "models": {"tiny": {"backbone": BACKBONE, "head": HEAD}},
        **train,
    }
    return found


def write(folder, content):
    """Write params.yaml and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class Project:
    """A project of its own for each test, and what its commands say."""

    def __init__(self, folder, artifacts, *, methods, capsys, caplog):
        self.folder, self._methods = folder, methods
        self._capsys, self._caplog = capsys, caplog
        self.artifacts = folder / "artifacts"
        shutil.copytree(artifacts, self.artifacts)
        self.change_model()

    def change_model(self, **parts):
        found = values(methods=self._methods)
        found["train"]["models"]["tiny"] |= parts
        self._path = write(self.folder, found)

    def run(self, stage, method, *changes):
        """Return the exit code, the lines of an error, and the warnings."""
        self._caplog.clear()
        sets = [part for change in changes for part in ("--set", change)]
        cell = (f"method={method}", *CELL)
        code = main(["run", stage, *cell, "--params", str(self._path), *sets])
        err = self._capsys.readouterr().err
        return code, [part for part in err.splitlines() if part.startswith("zspl:")], self.warnings

    def refused(self, stage, method, *changes):
        """Run what must fail and return its one line."""
        code, lines, _ = self.run(stage, method, *changes)
        assert code == 2
        assert len(lines) == 1
        return lines[0]

    @property
    def warnings(self):
        return list(self._caplog.messages)

    def work(self, method):
        return self.artifacts / ".work" / "train" / method / "tiny" / "labeled_20" / "seed-0"

    def cell(self, method):
        return self.artifacts / "cells" / method / "tiny" / "labeled_20" / "seed-0"

    def steps(self, method):
        """How many steps the checkpoint of an unfinished training holds."""
        return torch.load(self.work(method) / "checkpoint.pt", weights_only=True)["iteration"]

    def list_of(self, part):
        return self.artifacts / "data" / "splits" / "labeled_20" / f"{part}.txt"

    def records(self):
        lines = (self.artifacts / "data" / "records.jsonl").read_text().splitlines()
        return {record["image_id"]: record for record in map(json.loads, lines)}

    def path(self, image_id, kind="image"):
        return self.folder / self.records()[image_id][kind]
