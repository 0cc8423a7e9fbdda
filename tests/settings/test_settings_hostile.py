"""A params.yaml from a stranger: one line for each trick, and nothing is read, written or run."""

import copy
import time
from pathlib import Path

import pytest
import yaml

from zspl import plugins
from zspl.errors import SettingsError, UnknownPluginError
from zspl.sections import parse_yaml
from zspl.settings import Settings

PARAMS = Path(__file__).parents[2] / "params.yaml"
VALUES = yaml.safe_load(PARAMS.read_text())
VARIANT = {"proposals": "sam", "features": "gem", "labeler": {"name": "region_pool"}}
TRICKS = (
    "x; touch /tmp/trapped", "$(touch /tmp/trapped)", "`id`", "a b", "a\nb", "a|b", "a&b", "a>b",
    "'a'", '"a"', "a*", "${x}", "../a", "/etc", "a/b", "a\\b", "..", ".", ".a", "-a", "a\0b", "",
    "é", "a" * 101,
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """Parse the file of the default benchmark once."""
    if "tmp_path" not in request.fixturenames:
        monkeypatch.setattr("zspl.sections.parse_yaml", lambda _: copy.deepcopy(VALUES))


def refused(changes, match="."):
    with pytest.raises(SettingsError, match=match) as caught:
        Settings.read(PARAMS, changes)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    return str(caught.value)


@pytest.mark.parametrize("name", TRICKS)
def test_no_name_that_reaches_a_shell_command_or_a_folder_holds_more_than_a_name(name):
    small = VALUES["train"]["models"]["small"]
    for changes in (
        {"prepare.splits": [name], "cells.splits": [name], "label.calibration_split": name},
        {"propose": {name: {}}},
        {"embed": {name: {}}},
        {"embed_segments": {name: {}}},
        {"label.variants": {name: VARIANT}, "cells.labels": [name]},
        {"train.models": {name: small}, "cells.models": [name]},
        {"train.methods": {name: {}}, "cells.methods": [name]},
        {"cells.label_methods": [name]},
        {"label.variants.sam_gem.labeler.name": name},
        {"train.models.small.backbone.name": name},
        {"prepare.dataset.name": name},
        {"benchmark": name},
    ):
        refused(changes)


@pytest.mark.parametrize("value", ["0; id", "0", " 0\n", 0.0, True, -1, [0], {"a": 0}, None, "1_0"])
def test_a_seed_and_a_shard_are_whole_numbers_and_no_texts_that_look_like_one(value):
    refused({"cells.seeds": [value]}, "cells.seeds")
    refused({"prepare.shards": [value]}, "prepare.shards")


@pytest.mark.parametrize("section", ["cells.methods", "cells.models", "cells.splits"])
@pytest.mark.parametrize("value", [{"a; id": 1}, ["supervised"], 5, True, None])
def test_what_stands_in_a_matrix_is_text_and_no_structure(section, value):
    refused({section: [value]}, section)


@pytest.mark.parametrize(
    "out",
    ["/etc", "..", "../elsewhere", "a/../../b", ".", "", "/", ".git", ".dvc/a", "a/.b", "~/a"],
)
def test_artifacts_go_below_the_folder_of_params_yaml_and_into_no_hidden_one(out):
    if out == "~/a":  # no shell reads it: a folder of that name
        assert Settings.read(PARAMS, {"paths.out": out}).paths.out == Path(out)
        return
    refused({"paths.out": out}, "paths.out: expected a folder below that of params.yaml")


@pytest.mark.parametrize("out", ["zspl", "tests", "flows", "benchmarks", "tests/io"])
def test_artifacts_replace_no_code_and_no_benchmark(out):
    refused({"paths.out": out}, "(holds .*which is no artifact|lie in each other)")


def test_artifacts_and_data_do_not_lie_in_each_other(tmp_path):
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    path = tmp_path / "params.yaml"
    for source, out in (("data", "data"), ("data/a", "data"), ("data", "data/a"), ("data", "real")):
        values = copy.deepcopy(VALUES)
        values["paths"] = {"source": source, "out": out, "code": "."}
        path.write_text(yaml.safe_dump(values))
        with pytest.raises(SettingsError, match="lie in each other"):
            Settings.read(path)


def test_data_may_lie_where_the_user_likes():
    for source in ("../../data/VOC2012", "/data/VOC2012", "data"):
        assert Settings.read(PARAMS, {"paths.source": source}).paths.source == Path(source)


@pytest.mark.parametrize("key", ["paths.source", "paths.code", "paths.out"])
def test_a_path_with_a_control_character_is_refused(key):
    refused({key: "data\0x"}, f"{key}: expected a path of printable characters")


@pytest.mark.parametrize(
    "name", ["unimatch.os", "..methods.unimatch", "../unimatch", "_streams", "__init__", "os", ""]
)
def test_a_plugin_is_a_file_of_its_folder_and_nothing_that_python_could_import(name):
    with pytest.raises(UnknownPluginError):
        plugins.load("zspl.methods", name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.system ['touch trapped']", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: &a [*a]", "an anchor that holds itself"),
        ("[" * 3000, "nested too deeply|more than 50 levels"),
        ("a: " + "x" * 1_000_001, "expected at most 1000000"),
        ("a\0b", "special characters are not allowed"),
        ("--- 1\n--- 2", "single document"),
    ],
)
def test_yaml_is_data_alone_and_has_a_bounded_size(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.read(Path("params.yaml"))
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"]


def test_anchors_that_stand_for_a_billion_values_are_refused_at_once():
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    started = time.process_time()
    with pytest.raises(ValueError, match="stand for more than 100000 values"):
        parse_yaml("\n".join(lines))
    assert time.process_time() - started < 1


def test_anchors_of_a_usual_size_are_welcome():
    assert parse_yaml("a: &a {x: 1}\nb: *a\n") == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_long_wrong_value_is_not_printed_whole():
    assert len(refused({"benchmark": "x" * 5000 + "!"})) < 400


def test_every_yaml_that_zspl_reads_is_read_as_data():
    root = PARAMS.parent
    lines = [
        f"{path.relative_to(root)}: {line.strip()}"
        for folder in ("zspl", "tasks", "flows")
        for path in (root / folder).rglob("*.py")
        for line in path.read_text().splitlines()
    ]
    unsafe = ("yaml.load(", "yaml.unsafe", "yaml.full_load", "yaml.Loader", "pickle.load")
    found = [line for line in lines if any(word in line for word in unsafe)]
    # DVC's lock is read by the fast form of the safe loader.
    assert [line for line in found if "yaml.load(file, loader)" not in line] == []
    loads = [line for line in lines if "torch.load(" in line]
    assert loads
    assert [line for line in loads if "weights_only=True" not in line] == []
