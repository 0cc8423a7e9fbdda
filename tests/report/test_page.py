"""The page with its figures rendered: its bytes, and what a reader's browser shows."""

import runpy
from pathlib import Path

import pytest

from zspl import stages
from zspl.observer import Silent

here = runpy.run_path(str(Path(__file__).with_name("browser.py")))


def test_the_same_inputs_give_the_same_bytes_and_no_place_of_this_machine(make_world, tmp_path):
    world = make_world(published="pascal_voc")
    world.draw_scores()
    stages.run("tabulate", world.settings, Silent())
    first = {path.name: path.read_bytes() for path in world.tables.iterdir()}
    stages.run("tabulate", world.settings, Silent())
    assert {path.name: path.read_bytes() for path in world.tables.iterdir()} == first
    for name, content in first.items():
        assert str(tmp_path).encode() not in content, name
    assert b"(elsewhere)/VOC2012" in first["index.html"]


@pytest.mark.filterwarnings("default")
def test_the_page_fits_a_phone_and_a_desk_without_an_error_or_a_mute_picture(make_world, tmp_path):
    world = make_world(published="pascal_voc", classes=21, seeds=(0, 1))
    world.draw_scores(skip=("seed-1",))
    world.draw_costs()
    stages.run("tabulate", world.settings, Silent())
    with here["chromium"](tmp_path / "profile") as browser:
        for width, dark in ((360, False), (1280, False), (360, True)):
            here["opened"](browser, world.tables / "index.html", width=width, dark=dark)
            browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = 1)")
            found = here["faults"](browser)
            assert found.pop("images") == 7
            assert found.pop("overflow") <= 0
            assert not any(found.values()), (width, found)
            assert here["contrast"](browser) >= 4.5
