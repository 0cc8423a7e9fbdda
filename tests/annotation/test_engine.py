"""The run: order, batches, errors of readers, models and writers."""

import os
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from zspl.annotation import engine
from zspl.annotation.annotator import Annotation
from zspl.annotation.facts import Facts
from zspl.annotation.photos import find
from zspl.annotation.quarantine import Quarantine
from zspl.annotation.results import confidence_path, facts_path, label_path
from zspl.errors import DiskError, WeightsError
from zspl.records import PseudoLabel


class Painter:
    """Labels a photo with its first pixel, and remembers the passes."""

    def __init__(self):
        self.passes = []
        self.breaks = {}

    def __call__(self, photos):
        self.passes.append([seen.photo.name for seen in photos])
        for seen in photos:
            if seen.photo.name in self.breaks:
                raise self.breaks[seen.photo.name]
        return [self.one(seen) for seen in photos]

    def one(self, seen):
        size = (seen.image.height, seen.image.width)
        label = torch.full(size, seen.image.getpixel((0, 0))[0], dtype=torch.uint8)
        made = PseudoLabel(label=label, confidence=torch.ones(size))
        return Annotation(seen=seen, made=made, coverage=None, conflict=None)


@pytest.fixture
def folders(tmp_path):
    """Return (photos folder, out folder) with ten photos p0..p9, whose grey is their number."""
    for index in range(10):
        path = tmp_path / "photos" / f"p{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 3), index).save(path)
    return tmp_path / "photos", tmp_path / "out"


def run(folders, painter, **options):
    photos = find(folders[0]).photos
    waiting = engine.plan(photos, folders[1], **options)
    return engine.run(waiting, painter, out=folders[1])


def done(folders):
    return sorted(path.stem for path in (folders[1] / "facts").glob("*.json"))


@pytest.mark.parametrize("batch", [1, 3, 10, 16])
def test_every_photo_is_labeled_once_in_passes_of_the_batch(folders, batch):
    painter = Painter()

    tally = run(folders, painter, batch=batch)

    names = [f"p{index}" for index in range(10)]
    assert painter.passes == [names[i : i + batch] for i in range(0, 10, batch)]
    assert (tally.labeled, tally.quarantined) == (10, 0)
    assert done(folders) == names
    with Image.open(label_path(folders[1], "p7")) as label:
        assert np.unique(label).tolist() == [7]


def test_facts_tell_the_file_that_was_read(folders):
    run(folders, Painter())

    status = (folders[0] / "p3.png").stat()
    facts = Facts.read(facts_path(folders[1], "p3"))
    assert facts.stat == (status.st_size, status.st_mtime_ns)


def test_facts_are_written_last(folders, monkeypatch):
    written = []
    for name in ("write_label", "write_confidence"):
        real = getattr(engine, name)
        monkeypatch.setattr(
            engine, name, lambda path, x, real=real: (written.append(path), real(path, x))
        )
    real_write = Facts.write
    monkeypatch.setattr(
        Facts, "write", lambda self, path: (written.append(path), real_write(self, path))
    )

    run(folders, Painter())

    for index in range(10):
        kinds = [path.parent.name for path in written if path.stem == f"p{index}"]
        assert kinds == ["confidence", "labels", "facts"]


def test_a_pass_is_the_same_after_a_kill(folders):
    """What shares a pass may differ in the last bit, so a hole is filled by the whole pass."""
    run(folders, Painter(), batch=4)
    for name in ("p1", "p9"):
        facts_path(folders[1], name).unlink()
    untouched = label_path(folders[1], "p0").stat().st_mtime_ns
    painter = Painter()

    tally = run(folders, painter, batch=4)

    assert painter.passes == [["p0", "p1", "p2", "p3"], ["p8", "p9"]]
    assert tally.labeled == 2
    assert label_path(folders[1], "p0").stat().st_mtime_ns == untouched


def test_nothing_is_read_when_all_is_done(folders, monkeypatch):
    run(folders, Painter())
    monkeypatch.setattr(engine, "read_image", None)
    painter = Painter()

    assert run(folders, painter).labeled == 0
    assert painter.passes == []


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory"), ValueError()])
def test_the_photo_that_breaks_a_pass_is_found_and_the_others_are_labeled(folders, error):
    painter = Painter()
    painter.breaks["p5"] = error

    tally = run(folders, painter, batch=4)

    assert painter.passes == [
        ["p0", "p1", "p2", "p3"],
        ["p4", "p5", "p6", "p7"], ["p4"], ["p5"], ["p6"], ["p7"],
        ["p8", "p9"],
    ]  # fmt: skip
    assert (tally.labeled, tally.quarantined) == (9, 1)
    assert type(error).__name__ in tally.reasons["p5.png"]
    assert "p5" not in done(folders)


def test_a_photo_that_gets_broken_loses_its_old_label(folders):
    run(folders, Painter())
    (folders[0] / "p2.png").write_bytes(b"broken")

    tally = run(folders, Painter())

    assert tally.reasons == {
        "p2.png": "image is not readable (its bytes are of no known image format); replace the file"
    }
    assert "p2" not in done(folders)
    assert not label_path(folders[1], "p2").exists()
    assert not confidence_path(folders[1], "p2").exists()
    assert engine.plan(find(folders[0]).photos, folders[1]).held == tally.reasons


def test_a_model_that_cannot_be_used_ends_the_run(folders):
    painter = Painter()
    painter.breaks["p4"] = WeightsError("x.pth: does not fit")

    with pytest.raises(WeightsError, match="does not fit"):
        run(folders, painter)

    assert done(folders) == ["p0", "p1", "p2", "p3"]


def test_the_first_error_of_a_writer_ends_the_run_and_the_rest_is_whole(folders, monkeypatch):
    real = engine.write_confidence

    def full(path, confidence):
        if path.stem == "p2":
            raise DiskError(f"{path}: no disk space left")
        real(path, confidence)

    monkeypatch.setattr(engine, "write_confidence", full)

    with pytest.raises(DiskError, match=r"p2.png: no disk space left"):
        run(folders, Painter())

    for name in done(folders):
        assert label_path(folders[1], name).is_file()
    assert "p2" not in done(folders)
    monkeypatch.undo()
    run(folders, Painter())
    assert len(done(folders)) == 10


def test_an_error_of_the_very_last_writer_is_not_lost(folders, monkeypatch):
    def full(self, path):
        raise DiskError(f"{path}: no disk space left")

    for index in range(1, 10):
        (folders[0] / f"p{index}.png").unlink()
    monkeypatch.setattr(Facts, "write", full)

    with pytest.raises(DiskError):
        run(folders, Painter())


def test_reading_and_writing_run_beside_the_models_and_never_far_ahead(folders, monkeypatch):
    read, threads = [], set()
    real = engine.read_image

    def watched(path):
        read.append(path.stem)
        threads.add(threading.current_thread().name.split("_")[0])
        return real(path)

    monkeypatch.setattr(engine, "read_image", watched)
    ahead = []

    class Watching(Painter):
        def __call__(self, photos):
            ahead.append(len(read) - sum(map(len, self.passes)))
            return super().__call__(photos)

    run(folders, Watching())

    assert sorted(read) == [f"p{index}" for index in range(10)]
    assert threads == {"read"}
    assert max(ahead) <= 1 + engine._GROUPS_AHEAD


def test_a_photo_that_vanishes_is_put_aside(folders):
    photos = find(folders[0]).photos
    waiting = engine.plan(photos, folders[1])
    (folders[0] / "p9.png").unlink()

    tally = engine.run(waiting, Painter(), out=folders[1])

    assert list(tally.reasons) == ["p9.png"]
    assert tally.labeled == 9


def test_quarantine_holds_a_photo_only_as_the_file_it_was(folders):
    photo = find(folders[0]).photos[0]
    quarantine = Quarantine(folders[1])
    quarantine.put(photo, "too large", (1, 2))

    assert quarantine.reason(photo, (1, 2)) == "too large"
    assert quarantine.reason(photo, (1, 3)) is None
    quarantine.release(photo)
    assert quarantine.reason(photo, (1, 2)) is None


def test_the_quarantine_table_is_one_line_per_photo_in_any_alphabet(folders):
    quarantine = Quarantine(folders[1])
    quarantine.write_table([("b\n.jpg", "broken, badly"), (os.fsdecode(b"a\xe9.jpg"), "empty")])

    text = (folders[1] / "quarantine.csv").read_text(encoding="utf-8")
    assert text == 'source,reason\na\\udce9.jpg,empty\nb\\n.jpg,"broken, badly"\n'
    quarantine.write_table([])
    assert not (folders[1] / "quarantine.csv").exists()
