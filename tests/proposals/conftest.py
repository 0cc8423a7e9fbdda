"""Random SAMs and seeded masks, shared with the benches."""

import importlib.util
import os
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def seeded_masks():
    """Load benches/seeded_masks.py: random models, and hooks that give them useful masks."""
    spec = importlib.util.spec_from_file_location(
        "seeded_masks", ROOT / "benches" / "seeded_masks.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def real_photos():
    """Load a few photos of everyday scenes, which the tiny SAM never saw."""
    shared = Path(os.environ.get("ZSPL_SHARED", ROOT.parent / "shared"))
    files = sorted((shared / "data" / "coco128" / "train2017").glob("*.jpg"))[::40]
    if not files:
        pytest.skip(f"no photos in {shared / 'data' / 'coco128' / 'train2017'}")
    photos = [Image.open(file).convert("RGB") for file in files]
    for photo in photos:
        photo.thumbnail((320, 320))
    return photos


@pytest.fixture(scope="session")
def toy_scenes():
    """Render two scenes of the toy world."""
    from zspl.toyworld import scene

    return [Image.fromarray(scene.render(seed, spec=scene.BENCHMARK).image) for seed in range(2)]
