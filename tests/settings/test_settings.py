"""params.yaml is checked whole, and each problem is one line."""

from pathlib import Path

import pytest
import yaml

from zspl.errors import SettingsError, UnknownPluginError
from zspl.settings import Settings

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_the_default_benchmark_is_valid():
    assert Settings.read(PARAMS).benchmark == "demo"


@pytest.mark.parametrize(
    "path",
    sorted((PARAMS.parent / "benchmarks").glob("*/params.yaml")),
    ids=lambda p: p.parent.name,
)
def test_every_benchmark_is_valid_and_named_after_its_folder(path):
    assert Settings.read(path).benchmark == path.parent.name


def test_an_unknown_key_is_named():
    with pytest.raises(SettingsError, match=r"train\.epoch: there is no such setting"):
        Settings.read(PARAMS, {"train.epoch": 3})


def test_a_missing_key_is_named(tmp_path):
    values = yaml.safe_load(PARAMS.read_text())
    del values["train"]["momentum"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))

    with pytest.raises(SettingsError, match=r"train\.momentum: Field required") as caught:
        Settings.read(path)

    assert "\n" not in str(caught.value)


def test_every_missing_core_key_is_refused(tmp_path):
    values = yaml.safe_load(PARAMS.read_text())
    path = tmp_path / "params.yaml"
    for section in ("paths", "prepare", "label", "cells", "train", "evaluate", "tabulate"):
        for key in values[section]:
            broken = yaml.safe_load(PARAMS.read_text())
            del broken[section][key]
            path.write_text(yaml.safe_dump(broken))
            with pytest.raises(SettingsError, match=key):
                Settings.read(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "cells.splits",
            ["labeled_21"],
            r"cells\.splits: no 'labeled_21'\. Did you mean 'labeled_20'",
        ),
        ("cells.labels", ["sam_gme"], r"cells\.labels: no 'sam_gme'\. Did you mean 'sam_gem'"),
        ("train.momentum", 1.5, r"train\.momentum: .*less than 1, got 1\.5"),
        ("train.epochs", 3, "set exactly one of epochs and iterations"),
        ("prepare.shards", [0, 2], r"shards must be 0, 1, \.\.\., n-1, got \[0, 2\]"),
        ("train.selection", "holdout", "prepare.holdout is 0"),
        ("evaluate.window", 1, r"evaluate\.window: .*greater than or equal to 16, got 1"),
        ("evaluate.scales", [], r"evaluate\.scales: .*at least 1 item"),
        (
            "evaluate.scales",
            [1.0, 0],
            r"evaluate\.scales\.1: .*greater than or equal to 0.1, got 0",
        ),
        (
            "train.methods.unimatch",
            {"min_confidence": 1.5},
            "min_confidence.*less than or equal to 1",
        ),
    ],
)
def test_a_wrong_value_is_one_clear_line(key, value, message):
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.read(PARAMS, {key: value})

    assert "\n" not in str(caught.value)


VARIANT = {"proposals": "sam", "features": "crops-sam", "labeler": {"name": "region_pool"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proposals": "superpixels"}, "crops-sam come from segments of sam.* set it to sam"),
        ({"features": "crops"}, r"features: no 'crops'\. Did you mean 'crops-sam'"),
        ({"features": "clip-sam"}, r"features: no 'clip-sam'\. Did you mean"),
        ({"proposals": "none", "labeler": {"name": "pixel_argmax"}}, None),
        ({}, None),
    ],
)
def test_features_that_saw_segments_go_with_those_segments_only(change, message):
    changes = {
        "propose.superpixels": {},
        "label.variants": {"one": {**VARIANT, **change}},
        "cells.labels": [],
    }
    if message is None:
        assert Settings.read(PARAMS, changes).seen_by_features["crops-sam"] == "sam"
        return
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.read(PARAMS, changes)
    assert "\n" not in str(caught.value)


def test_settings_of_an_encoder_of_segments_are_checked_too():
    with pytest.raises(SettingsError, match=r"features/crops\.py has 1 problem.*outside"):
        Settings.read(PARAMS, {"embed_segments.crops": {"outside": "grey"}})


@pytest.mark.parametrize("key", ["../..", "", "a/b", ".hidden"])
def test_a_name_that_would_leave_the_artifacts_folder_is_refused(key):
    variant = {"proposals": "none", "features": "clip", "labeler": {"name": "pixel_argmax"}}

    with pytest.raises(SettingsError, match="should match pattern"):
        Settings.read(PARAMS, {"label.variants": {key: variant}, "cells.labels": []})


def test_an_unknown_plugin_offers_the_nearest():
    with pytest.raises(UnknownPluginError, match="Did you mean 'unimatch'"):
        Settings.read(PARAMS, {"train.methods.unimach": {}})


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(SettingsError, match="run where it lies or pass --params"):
        Settings.read(tmp_path / "params.yaml")


def test_a_file_that_is_no_yaml_is_one_line(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("a: [1\nb: }")

    with pytest.raises(SettingsError, match="is no YAML") as caught:
        Settings.read(path)

    assert "\n" not in str(caught.value)
