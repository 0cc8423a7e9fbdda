import html.parser
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from zspl.annotation import page
from zspl.annotation._cards import text
from zspl.annotation._summary import reasons, summarise
from zspl.errors import DataError

VOID = {"meta", "img", "line", "circle", "polyline", "br"}


class Tags(html.parser.HTMLParser):
    """Checks that tags close in order, and keeps the text, the tags and the addresses."""

    def __init__(self, content):
        super().__init__()
        self.open, self.seen, self.addresses, self.words = [], [], [], []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.addresses += [value for key, value in attrs if key in {"src", "href", "xlink:href"}]
        assert not [key for key, _ in attrs if key.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def shown(self):
        return re.sub(r"\s+", " ", "".join(self.words))


def written(made):
    return page.write(made.results, made.out).read_text(encoding="utf-8")


def share(value, low, high, key="iou"):
    return {key: value, "low": low, "high": high}


@pytest.fixture
def calibration():
    """Return what a calibration report says as JSON."""
    bins = [
        {"pixels": 0, "confidence": None, "accuracy": None},
        {"pixels": 30, "confidence": 0.35, "accuracy": 0.25},
        {"pixels": 70, "confidence": 0.9, "accuracy": 0.6},
    ]
    return {
        "decision": {"threshold": 0.8, "class_thresholds": {"1": 0.7}, "confidence": None},
        "class_thresholds": {"c<a>t": 0.7},
        "images": 12,
        "fitted_miou": 0.6,
        "expected": share(0.55, 0.48, 0.62, key="miou")
        | {"level": 0.9, "images": 12, "held_out": True, "unmeasured": ["dog"]}
        | {"iou": {"background": share(0.8, 0.7, 0.9), "c<a>t": share(0.3, None, None)}},
        "reliability": {
            "before": {"ece": 0.2, "reliability": bins},
            "after": {"ece": None, "reliability": bins[:1]},
        },
        "than": None,
        "verdict": "Go",
        "sentence": "Go: expected mIoU 55 % (90 % interval 48-62, 12 images); weakest: c<a>t 30 %.",
    }


def test_the_page_says_how_many_photos_with_which_classes_and_numbers(folder):
    made = folder("cat", "dog")
    made.add("a.jpg", [[0, 1, 1, 255]], coverage=1.0, conflict=0.0, doubt=0.1)
    made.add("b.jpg", [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]], coverage=0.5, conflict=0.2, doubt=0.5)
    shown = Tags(written(made)).shown.replace("\xa0", " ")
    assert "2 photos labeled with cat and dog" in shown
    # Weighted by pixels: (4 * 1 + 12 * 0.5) / 16, (0 + 12 * 0.2) / 16, 1 - (4 * .1 + 12 * .5) / 16.
    assert "coverage62 %" in shown
    assert "conflict15 %" in shown
    assert "mean confidence0.60" in shown
    assert "cat12 %1" in shown
    assert "background81 %2" in shown
    assert "dog0 %0" in shown
    assert "not claimed6 %1" in shown


def test_hostile_names_are_shown_as_text_and_nothing_is_loaded_from_elsewhere(folder, calibration):
    made = folder("c<a>t", "dog & co", "javascript:alert(1)")
    calibration["class_thresholds"] = {"c<a>t": 0.7}
    names = [
        "<script>alert(1)<",
        "\"'><img src=x onerror=alert(1)>",
        "caf\udce9",
        "line\nfeed",
        "\u202egpj.exe",
        "x" * 240,
    ]
    for name in names:
        made.add(f"{name}.jpg", np.full((30, 30), 1))
    made.quarantine(("<b>bad</b>.jpg", "<script>no</script>"))
    made.made_with({"zspl": "<i>", "calibration": calibration})
    content = written(made)
    tags = Tags(content)
    assert {"script", "b", "i", "a", "link", "iframe"}.isdisjoint(tags.seen)
    assert all(address.startswith("data:image/jpeg;base64,") for address in tags.addresses)
    assert "http" not in content
    assert "url(" not in content
    assert "@import" not in content
    assert "<script>alert(1)<.jpg" in tags.shown
    assert "caf\\udce9" in tags.shown
    assert "line\\nfeed" in tags.shown
    assert "\u202e" not in content


def test_no_path_of_the_machine_is_in_the_page_and_its_bytes_repeat(folder, random_label, tmp_path):
    made = folder("cat", "dog")
    for seed in range(4):
        made.add(f"sub/{seed}.jpg", random_label(seed, (40, 60), 2))
    first = written(made)
    assert str(tmp_path) not in first
    assert written(made) == first


def test_the_most_doubtful_half_comes_first_with_the_reason(folder):
    made = folder("cat")
    for name, doubt in (("b", 0.7), ("a", 0.7), ("c", 0.9), ("sure", 0.1), ("rather", 0.2)):
        made.add(f"{name}.jpg", np.ones((8, 8)), doubt=doubt)
    made.add("odd.jpg", [[0, 0, 0, 255]], doubt=0.95, coverage=0.25, conflict=0.5)
    made.add("other.jpg", np.ones((8, 8)), doubt=0.0)
    shown = Tags(written(made)).shown.replace("\xa0", " ")
    ranked = [f"{name}.jpg{rank}. mean" for rank, name in enumerate(["odd", "c", "a", "b"], 1)]
    order = [shown.index(text) for text in (*ranked, "From all over", "other.jpg", "sure.jpg")]
    assert order == sorted(order)
    assert (
        "1. mean confidence 0.05, no class was found, 25 % not claimed, 75 % in no segment, "
        "segments disagree on 50 %"
    ) in shown


def test_the_command_to_go_on_names_the_same_classes(folder):
    from zspl.annotation.vocabulary import read_classes

    made = folder("cat")
    made.add("a.jpg", np.ones((8, 8)))
    table = read_classes("cat, dog=dog|puppy, bird's nest", "sky, grass")
    table.write(made.out / "classes.json")
    shown = Tags(written(made)).shown
    command = re.search(r"zspl annotate .*? --out OUT", shown).group()
    words = shlex.split(command)
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert read_classes(options["--classes"], options["--background"]) == table


def test_a_photo_without_segments_is_not_called_uncovered(folder):
    made = folder("cat")
    made.add("a.jpg", np.ones((4, 4)), coverage=None, conflict=None, doubt=0.25)
    assert reasons(made.results.facts("a")) == "mean confidence 0.75"
    summary = summarise(made.results, doubtful=3)
    assert (summary.coverage, summary.conflict) == (None, None)
    shown = Tags(written(made)).shown
    assert "coverage" not in shown
    assert "conflict" not in shown


def test_calibration_shows_the_verdict_expectations_and_both_curves(folder, calibration):
    made = folder("c<a>t", "dog")
    made.add("a.jpg", np.ones((8, 8)))
    made.made_with({"zspl": "0.1.0", "calibration": calibration})
    content = written(made)
    tags = Tags(content)
    shown = tags.shown.replace("\xa0", " ")
    assert calibration["sentence"] in shown
    assert "expected mIoU55 %48 to 62 %" in shown
    assert "mean over classes55 %48 to 62 %" in shown
    assert "c<a>t30 %0.700" in shown
    assert "background80 %70 to 90 %0.800" in shown
    assert "dogin no mask" in shown
    assert "Raw confidence: off by 20.0 points" in shown
    assert tags.seen.count("svg") == 2
    # Two bins with pixels before, none after.
    assert tags.seen.count("circle") == 2


def test_without_calibration_there_is_no_word_of_it(folder):
    made = folder("cat")
    made.add("a.jpg", np.ones((8, 8)))
    content = written(made)
    assert "<svg" not in content
    assert "expected mIoU" not in content


def test_tiny_weights_are_called_what_they_are(folder):
    made = folder("cat")
    made.add("a.jpg", np.ones((8, 8)))
    assert "tiny weights" not in written(made)
    made.made_with({"features": {"name": "gem", "settings": {"model": "tiny"}}})
    shown = Tags(written(made)).shown
    assert "Made with the tiny weights in the package" in shown
    assert "Made by gem (tiny) from class names" in shown


def test_many_large_noisy_photos_stay_below_five_megabytes(folder):
    made = folder(*(f"class {i}" for i in range(200)))
    for index in range(26):
        made.add(f"{index:03}.png", np.full((300, 400), index), doubt=index / 100)
    made.quarantine(*((f"{'x' * 200}{i}.jpg", "reason " * 40) for i in range(500)))
    content = written(made)
    assert content.count("data:image/jpeg") == 2 * 24
    assert len(content) < 5_000_000
    assert "and 400 more, see quarantine.csv" in content


def test_photos_that_are_gone_or_changed_do_not_stop_the_page(folder):
    made = folder("cat")
    for name in ("gone.png", "changed.png", "broken.png"):
        made.add(name, np.ones((8, 8)))
    (made.photos / "gone.png").unlink()
    Image.new("RGB", (5, 5)).save(made.photos / "changed.png")
    (made.photos / "broken.png").write_bytes(b"no picture")
    content = written(made)
    assert content.count("The photo is gone or was changed") == 3


def test_an_empty_folder_still_gets_a_page(folder):
    made = folder("cat")
    made.quarantine(("a.jpg", "the file is empty"))
    shown = Tags(written(made)).shown
    assert "0 photos labeled with cat" in shown
    assert "a.jpgthe file is empty" in shown


def test_a_damaged_stamp_is_an_error(folder):
    made = folder("cat")
    (made.out / "annotate.json").write_text("{")
    with pytest.raises(DataError, match=r"annotate\.json"):
        page.write(made.results, made.out)


def test_text_is_escaped_on_one_line_and_cut_in_the_middle():
    assert text("a<b>&\"'\n") == "a&lt;b&gt;&amp;&quot;&#x27;\\n"
    assert text("5 %") == "5&nbsp;%"
    assert text("a" * 50 + "b" * 50, longest=10) == "aaaaa…bbbbb"
