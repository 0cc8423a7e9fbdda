"""dvc.yaml watches all that a stage can run, and no more than it must."""

from functools import cache
from pathlib import Path

import grimp
import pytest
import yaml

from zspl.settings import Settings, Train

pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).parents[2]
FOLDERS = ("", *sorted(f"benchmarks/{p.name}" for p in (ROOT / "benchmarks").iterdir()))
# Texts and progress bars change no number.
# Reading settings needs these; the stages themselves check their plugins again.
WATCHED = {"zspl.settings", "zspl.sections", "zspl.plugins"}
UNWATCHED_ON_PURPOSE = {"zspl", "zspl.errors", "zspl.observer"}


@cache
def imports():
    return grimp.build_graph("zspl")


@cache
def stages(folder):
    """Return the stages of one benchmark as DVC resolves them, by name."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        pipeline = str(ROOT / folder / "dvc.yaml")
        return {stage.name: stage for stage in repo.index.stages if stage.path == pipeline}


@cache
def settings(folder):
    return yaml.safe_load((ROOT / folder / "params.yaml").read_text())


def plugins_of(word, instance, values):
    """Return the plugin modules that one instance builds."""
    if word == "prepare":
        yield f"zspl.datasets.{values['prepare']['dataset']['name']}"
    if "proposer" in instance:
        yield f"zspl.proposals.{instance['proposer']}"
    if "encoder" in instance:
        yield f"zspl.features.{instance['encoder']}"
    if word == "label":
        yield f"zspl.labeling.{values['label']['variants'][instance['variant']]['labeler']['name']}"
    if word in ("train", "evaluate") and "method" in instance:
        yield f"zspl.methods.{instance['method']}"
    if "model" in instance:
        model = values["train"]["models"][instance["model"]]
        yield f"zspl.models.backbones.{model['backbone']['name']}"
        yield f"zspl.models.heads.{model['head']['name']}"


def code_of(stage, values):
    """Return every module of zspl that running one stage instance can import."""
    word, *pairs = stage.cmd.removeprefix("python -m tasks ").split()
    if word == "check":
        return {"zspl.settings", *imports().find_upstream_modules("zspl.settings")} & WATCHED
    instance = dict(pair.split("=") for pair in pairs)
    start = {f"zspl.stages.{word}", *plugins_of(word, instance, values)}
    modules = set(start)
    for module in start:
        modules |= imports().find_upstream_modules(module)
    packages = {module.rpartition(".")[0] for module in modules}
    return (modules | packages) - UNWATCHED_ON_PURPOSE - {""}


def file_of(module):
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def watched(stage):
    return [Path(dep.fs_path) for dep in stage.deps if dep.fs_path]


@pytest.mark.parametrize("folder", FOLDERS)
def test_dvc_watches_all_the_code_a_stage_can_run(folder):
    missing = set()
    for stage in stages(folder).values():
        for module in code_of(stage, settings(folder)):
            file = file_of(module)
            if not any(file.is_relative_to(path) for path in watched(stage)):
                missing.add((stage.name.partition("@")[0], str(file.relative_to(ROOT))))
    assert not missing, f"add to the deps in dvc.yaml: {sorted(missing)}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_code_file_that_is_watched_exists(folder):
    code = ROOT / "zspl"
    files = {path for stage in stages(folder).values() for path in watched(stage)}
    assert not {path for path in files if path.is_relative_to(code) and not path.exists()}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_cell_watches_no_method_but_its_own(folder):
    for name, stage in stages(folder).items():
        if name.startswith("train"):
            methods = {path.stem for path in watched(stage) if path.parent.name == "methods"}
            own = stage.cmd.split("method=")[1].split()[0]
            assert {m for m in methods if not m.startswith("_")} == {own}


def test_the_two_kinds_of_cells_watch_the_same_but_for_the_pseudo_labels():
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for word in ("train", "evaluate"):
        plain = set(pipeline[word]["deps"])
        labeled = {dep.replace("-${item.labels}", "") for dep in pipeline[f"{word}-labels"]["deps"]}
        assert labeled - plain == (
            {"${paths.out}/labels/${item.labels}"} if word == "train" else set()
        )
        assert plain <= labeled
        assert pipeline[word]["params"] == pipeline[f"{word}-labels"]["params"]


def test_train_depends_on_every_setting_of_its_section():
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]["params"]
    expected = {f"train.{name}" for name in Train.model_fields} - {"train.methods", "train.models"}
    assert set(declared) == expected | {
        "threads",
        "evaluate.window",
        "train.methods.${item.method}",
        "train.models.${item.model}",
    }


def test_a_cell_is_scored_anew_when_its_photos_are_looked_at_otherwise():
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert "evaluate" in pipeline["evaluate"]["params"]


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_a_benchmark_has_the_same_pipeline(folder):
    assert (ROOT / folder / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()


def test_no_core_field_has_a_default_that_dvc_cannot_see():
    sections, fields = [Settings], []
    while sections:
        section = sections.pop()
        for name, field in section.model_fields.items():
            fields.append((f"{section.__name__}.{name}", field.is_required()))
            kind = field.annotation
            if isinstance(kind, type) and hasattr(kind, "model_fields"):
                sections.append(kind)
    assert not [name for name, required in fields if not required]


def test_no_command_with_a_name_of_params_yaml_can_run_before_the_names_are_checked():
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    first = {name: stage.get("do", stage) for name, stage in pipeline.items()}
    assert {name for name, stage in first.items() if "${" not in stage["cmd"]} == {
        "check",
        "prepare",
        "tabulate",
    }
    assert set(first["check"]["params"]) == set(Settings.model_fields)
    assert first["check"]["outs"] == [".checked"]
    assert ".checked" in first["prepare"]["deps"]
    for name in first.keys() - {"check", "prepare", "tabulate"}:
        assert any(dep.startswith("${paths.out}/data/") for dep in first[name]["deps"]), name
