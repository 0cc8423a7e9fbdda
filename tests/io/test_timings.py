from pathlib import Path

import pytest

from zspl.errors import SettingsError
from zspl.io.layout import Layout
from zspl.io.timings import path_of, read_timings, timed, timing_of
from zspl.settings import Settings

ROOT = Path(__file__).parents[2]
CELL = {"method": "unimatch", "model": "small", "split": "labeled_20", "seed": "0"}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    settings = Settings.read(ROOT / "params.yaml")
    paths = settings.paths.model_copy(update={"out": tmp_path})
    return settings.model_copy(update={"paths": paths})


def train(settings, *, killed=False):
    with timed(settings, "train", CELL) as numbers:
        if killed:
            raise KeyboardInterrupt
        numbers.update(iterations=6.0, seconds=41.5)


def test_a_finished_instance_tells_what_it_took_whatever_the_order_of_its_keys(settings):
    train(settings)
    took = timing_of(settings, "train", dict(reversed(CELL.items())))
    assert took in read_timings(settings.paths.out)
    assert (took.stage, took.instance, took.units, took.device) == ("train", CELL, 6, "cpu")
    assert took.seconds == 41.5  # a training counts its own, over all that continued it
    assert took.cost == took.cpu_seconds
    assert took.peak_memory_mib > 50


def test_what_was_killed_and_continued_has_no_time_of_the_processor(settings):
    train(settings)
    with pytest.raises(KeyboardInterrupt):
        train(settings, killed=True)
    assert timing_of(settings, "train", CELL) is None
    train(settings)
    took = timing_of(settings, "train", CELL)
    assert (took.seconds, took.cpu_seconds, took.cost) == (41.5, None, None)


def test_a_time_under_other_settings_of_a_step_is_not_known(settings):
    train(settings)
    train_section = settings.train.model_copy(update={"crop_size": 9})
    other = settings.model_copy(update={"train": train_section})
    assert timing_of(other, "train", CELL) is None


def test_what_never_began_since_its_settings_were_wrong_is_not_continued_later(settings):
    with pytest.raises(SettingsError), timed(settings, "train", CELL):
        raise SettingsError("wrong")
    train(settings)
    assert timing_of(settings, "train", CELL).cpu_seconds is not None


def test_names_of_any_length_have_files_of_their_own(settings):
    long = [path_of(settings.paths.out, "train", {"method": 300 * "a" + x}) for x in "ab"]
    assert long[0] != long[1]
    assert all(len(path.name) < 255 for path in long)


def test_a_damaged_file_is_no_time(settings):
    train(settings)
    path_of(settings.paths.out, "train", CELL).write_text('{"stage": "train"}')
    assert timing_of(settings, "train", CELL) is None
    assert read_timings(settings.paths.out) == []


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a,b=c"])
def test_no_name_leads_out_of_the_folder(settings, name):
    path = path_of(settings.paths.out, "train", {"method": name})
    assert path.parent == Layout(settings.paths.out).timings
    assert path.name.startswith("train,method=")
