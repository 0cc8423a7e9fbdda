"""A project as a user has one, so small that a stage takes a second: params.yaml on toyworld."""

from pathlib import Path

import yaml

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
