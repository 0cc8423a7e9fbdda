"""`zspl init`: from photos, masks and class names to a project that runs."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from zspl import cli
from zspl.cli import _init_place
from zspl.io.images import read_label, write_label
from zspl.settings import Settings
from zspl.toyworld.scene import BENCHMARK, render

ROOT = Path(__file__).parents[2]
SHARED = ROOT / os.environ.get("ZSPL_SHARED", "../shared") / "data" / "voc_animals"
TINY = ("--sam", "tiny", "--clip", "tiny", "--model", "small")
VOC = (
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, table, dog, horse, "
    "motorbike, person, plant, sheep, sofa, train, screen"
)
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Ten rendered photos in two folders, six of them with masks."""
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    for number in range(10):
        scene, name = render(700 + number, spec=BENCHMARK), f"f{number % 2}/tile {number}.png"
        photo = tmp_path / "photos" / name
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(photo)
        if number < 6:
            write_label(tmp_path / "masks" / name, scene.label)
    return tmp_path


KINDS = ", ".join(BENCHMARK.class_names)


def init(world, *more, classes=KINDS):
    words = ["--images", world / "photos", "--masks", world / "masks", "--classes", classes]
    return cli.main(["init", str(world / "farm"), *map(str, words), *TINY, *more])


def content(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_photos_are_linked_and_neither_copied_nor_changed(world, capsys):
    before = content(world / "photos") | content(world / "masks")
    assert init(world) == 0
    links = sorted((world / "farm" / "data" / "photos").iterdir())
    assert len(links) == 10
    assert all(link.is_symlink() for link in links)
    assert links[0].name == "f0__tile 0.png"
    assert links[0].resolve() == world / "photos" / "f0" / "tile 0.png"
    assert content(world / "photos") | content(world / "masks") == before
    assert "10 linked" in capsys.readouterr().out


def test_the_project_is_whole_and_its_settings_are_valid(world):
    assert init(world) == 0
    farm = world / "farm"
    settings = Settings.read(farm / "params.yaml")
    assert settings.benchmark == "farm"
    assert settings.propose["sam"]["model"] == "tiny"
    assert (farm / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    assert (farm / "code" / "zspl").resolve() == ROOT / "zspl"
    assert (farm / ".git").is_dir()
    assert (farm / ".dvc").is_dir()
    ignored = subprocess.run(
        ["git", "status", "--short", "-uall"], cwd=farm, capture_output=True, text=True, check=True
    )
    assert "data/lists/val.txt" in ignored.stdout
    assert "data/photos" not in ignored.stdout


def test_a_fifth_of_the_masks_is_scored_on_and_the_rest_teaches(world):
    assert init(world) == 0
    lists = world / "farm" / "data" / "lists"
    val, labeled = (set((lists / f"{n}.txt").read_text().splitlines()) for n in ("val", "labeled"))
    assert len(val) == 1
    assert len(labeled) == 5
    assert not val & labeled


def test_what_is_wrong_with_masks_is_told_and_they_are_left_out(world, capsys):
    masks = world / "masks"
    label = read_label(masks / "f0" / "tile 0.png")
    label[0, 0] = 99
    write_label(masks / "f0" / "tile 0.png", label)
    write_label(masks / "f1" / "tile 1.png", np.zeros((5, 5), np.uint8))
    write_label(masks / "stranger.png", np.zeros((5, 5), np.uint8))
    (world / "photos" / "broken.jpg").write_bytes(b"no photo")
    assert init(world, classes=", ".join([*BENCHMARK.class_names, "oak"])) == 1
    out = capsys.readouterr().out
    assert "mask tile 0.png: holds the values 99, expected 0 to 11 or 255" in out
    assert "mask tile 1.png: mask is 5x5, its image 96x96" in out
    assert "1 masks belong to no photo, such as stranger.png" in out
    assert "left out: broken.jpg" in out
    assert "no mask shows oak" in out
    assert len(list((world / "farm" / "data" / "masks").iterdir())) == 4


def test_too_few_usable_masks_make_no_project(world, capsys):
    for mask in sorted((world / "masks").rglob("*.png"))[1:]:
        mask.unlink()
    assert init(world) == 2
    assert "1 of 1 masks can be used, expected 2 or more" in capsys.readouterr().err
    assert not (world / "farm").exists()


def test_a_script_that_forgets_an_option_is_told_and_never_asked(world, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("a script was asked"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert cli.main(["init", str(world / "farm"), "--images", str(world / "photos")]) == 2
    assert "--masks is missing" in capsys.readouterr().err


def test_a_terminal_is_asked_for_what_is_missing(world, monkeypatch):
    answers = iter([str(world / "masks"), ", ".join(BENCHMARK.class_names)])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    words = ["init", str(world / "farm"), "--images", str(world / "photos"), *TINY]
    assert cli.main(words) == 0
    assert (world / "farm" / "params.yaml").exists()


def test_a_project_that_is_there_is_not_overwritten(world, capsys):
    assert init(world) == 0
    (world / "farm" / "params.yaml").write_text("mine")
    assert init(world) == 2
    assert "there is a project already" in capsys.readouterr().err
    assert (world / "farm" / "params.yaml").read_text() == "mine"


def test_a_try_that_was_broken_off_is_gone_on_with(world):
    assert init(world) == 0
    (world / "farm" / "params.yaml").unlink()
    (world / "farm" / "dvc.yaml").unlink()
    assert init(world) == 0


def test_links_and_lists_of_somebody_else_are_neither_replaced_nor_mixed_with(world, capsys):
    theirs = world / "farm" / "data" / "photos" / "mine.png"
    theirs.parent.mkdir(parents=True)
    theirs.symlink_to(world / "photos" / "f0" / "tile 0.png")
    assert init(world) == 2
    assert "is no link that zspl init would make" in capsys.readouterr().err
    assert [path.name for path in theirs.parent.iterdir()] == ["mine.png"]
    theirs.unlink()
    listed = world / "farm" / "data" / "lists" / "val.txt"
    listed.parent.mkdir()
    listed.write_text("mine\n")
    assert init(world) == 2
    assert "is another list" in capsys.readouterr().err
    assert listed.read_text() == "mine\n"


def test_inside_a_git_repository_no_second_one_is_made(world):
    subprocess.run(["git", "init", "-q"], cwd=world, check=True)
    assert init(world) == 0
    assert not (world / "farm" / ".git").exists()
    assert (world / "farm" / ".dvc").is_dir()


def test_an_installation_without_a_pipeline_is_refused(world, capsys, monkeypatch):
    monkeypatch.setattr(_init_place, "PIPELINE", world / "pipeline.yaml")
    assert init(world) == 2
    assert "this installation has no pipeline" in capsys.readouterr().err
    assert not (world / "farm").exists()


def test_a_wheel_holds_the_pipeline():
    link = ROOT / "zspl" / "pipeline.yaml"
    packaged = (ROOT / "pyproject.toml").read_text()
    assert link.resolve() == ROOT / "dvc.yaml"
    assert '"pipeline.yaml"' in packaged


def test_large_photos_are_looked_at_smaller_in_training_and_in_scoring(world):
    for path in sorted((world / "photos").rglob("*.png"))[3:]:
        path.unlink()
    for path in (*(world / "photos").rglob("*.png"), *(world / "masks").rglob("*.png")):
        with Image.open(path) as image:
            enlarged = image.resize((1280, 1280), Image.Resampling.NEAREST)
        enlarged.save(path, compress_level=1)
    assert init(world, "--model", "mobilenet") == 0
    values = yaml.safe_load((world / "farm" / "params.yaml").read_text())
    assert values["evaluate"]["scales"] == [0.6]
    assert values["train"]["scale_range"] == [0.3, 0.9]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the photos of ZSPL_SHARED")
def test_real_photos_reached_by_links_are_prepared(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        (tmp_path / folder).mkdir()
        ids = (SHARED / "ImageSets" / "Segmentation" / "labeled_92.txt").read_text().split()[:10]
        for image_id in ids:
            name = f"{image_id}{suffix}"
            (tmp_path / folder / name).symlink_to((SHARED / folder / name).resolve())
    words = ["--images", tmp_path / "JPEGImages", "--masks", tmp_path / "SegmentationClass"]
    farm = tmp_path / "farm"
    assert cli.main(["init", str(farm), *map(str, words), "--classes", VOC]) == 0
    settings = Settings.read(farm / "params.yaml")
    assert settings.propose["sam"]["model"] == "vit_t"
    assert settings.cells.models == ("mobilenet",)
    assert "no mask shows bicycle" in capsys.readouterr().out
    assert cli.main(["run", "prepare", "--params", str(farm / "params.yaml")]) == 0
    assert '"labeled/labeled": 8.0' in capsys.readouterr().out


@pytest.mark.orchestration
def test_the_commands_it_prints_lead_from_photos_to_table_and_predictions(world, capsys):
    assert init(world, "--iterations", "8") == 0
    printed = capsys.readouterr().out.split("next, in this order:\n")[1].splitlines()
    script = [line.split("  # ")[0].strip() for line in printed if line.strip()]
    assert script[0] == f"cd {shlex.quote(str(world / 'farm'))}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=world,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    farm = world / "farm"
    table = (farm / "artifacts" / "tables" / "table.txt").read_text()
    assert "recommended" in table
    assert "supervised" in table
    assert "10 of 10 photos labeled" in done.stdout
    assert len(list((farm / "predictions" / "labels").rglob("*.png"))) == 10
