"""propose: one Parquet file per shard, the same bytes however often it was killed."""

import pytest
import torch
from PIL import Image

from zspl.errors import DataError, SettingsError
from zspl.io.layout import Layout
from zspl.io.proposals import ProposalFile
from zspl.observer import Silent
from zspl.proposals import superpixels
from zspl.stages import propose


def run(settings, shard=0):
    return propose.run(settings, Silent(), proposer="superpixels", shard=shard)


def test_a_shard_holds_the_proposals_of_its_images(prepared):
    layout = Layout(prepared.paths.out)
    summary = run(prepared, shard=1)
    file = ProposalFile(layout.proposals("superpixels", 1))
    assert list(file.sizes) == ["image_5", "image_6", "image_7"]
    assert summary["images"] == 3
    assert summary["coverage"] == 1
    settings = superpixels.Settings(segments=40)
    image = Image.open(prepared.paths.out / "image_6.png")
    assert torch.equal(file.read("image_6").masks, superpixels.build(settings).propose(image).masks)
    assert not layout.work("propose", "superpixels", "1").exists()


def test_a_killed_shard_continues_and_ends_with_the_same_bytes(prepared, monkeypatch):
    path = Layout(prepared.paths.out).proposals("superpixels", 0)
    run(prepared)
    undisturbed = path.read_bytes()
    path.unlink()

    calls = []
    original = superpixels.SuperpixelProposer.propose

    def dies_at_the_third(self, image):
        calls.append(image)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, image)

    monkeypatch.setattr(superpixels.SuperpixelProposer, "propose", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(prepared)
    assert not path.exists()
    run(prepared)
    assert len(calls) == 3 + 3
    assert path.read_bytes() == undisturbed


def test_a_whole_work_folder_needs_no_model(prepared, monkeypatch):
    layout = Layout(prepared.paths.out)
    run(prepared)
    expected = layout.proposals("superpixels", 0).read_bytes()
    monkeypatch.setattr(propose.shutil, "rmtree", lambda *_: None)
    run(prepared)
    monkeypatch.setattr(superpixels, "build", None)
    layout.work("propose", "superpixels", "0").joinpath("whole.parquet").unlink(missing_ok=True)
    run(prepared)
    assert layout.proposals("superpixels", 0).read_bytes() == expected


def test_other_settings_start_over(prepared, monkeypatch):
    run(prepared)
    changed = prepared.model_copy(update={"propose": {"superpixels": {"segments": 5}}})
    monkeypatch.setattr(propose.shutil, "rmtree", lambda *_: None)
    few = run(changed)["segments"]
    monkeypatch.undo()
    many = run(prepared)["segments"]
    assert few < many


def test_a_missing_or_damaged_image_is_one_line_and_finished_work_stays(prepared):
    (prepared.paths.out / "image_3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"image_3\.png: image is not readable"):
        run(prepared)
    done = Layout(prepared.paths.out).work("propose", "superpixels", "0") / "images"
    assert len(list(done.iterdir())) == 3
    (prepared.paths.out / "image_3.png").unlink()
    with pytest.raises(DataError, match=r"image_3\.png: no such image"):
        run(prepared)


def test_an_unknown_proposer_or_shard_is_refused(prepared):
    with pytest.raises(SettingsError, match=r"no propose\.sam; there are: superpixels"):
        propose.run(prepared, Silent(), proposer="sam", shard=0)
    with pytest.raises(SettingsError, match=r"no shard 2; prepare\.shards goes from 0 to 1"):
        run(prepared, shard=2)
