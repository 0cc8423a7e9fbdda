"""embed: features and texts of a shard, the same bytes however often it was killed."""

import pytest
import torch
from PIL import Image

from zspl.errors import DataError, SettingsError
from zspl.io.features import FeatureFile
from zspl.io.layout import Layout
from zspl.observer import Silent
from zspl.stages import embed


def run(settings, shard=0):
    return embed.run(settings, Silent(), encoder="clip", shard=shard)


def test_a_shard_holds_the_features_of_its_images_and_the_texts(prepared, colors):
    layout = Layout(prepared.paths.out)
    summary = run(prepared, shard=1)
    file = FeatureFile(layout.features("clip", 1))
    assert set(file.sizes) == {"image_5", "image_6", "image_7"}
    assert file.text.class_names == ("red", "green", "blue")
    expected = colors().dense(Image.open(prepared.paths.out / "image_7.png"))
    assert torch.equal(file.read("image_7").grid, expected.grid.half().float())
    assert file.read("image_7").image_size == (24, 32)
    assert summary == {"images": 3, "channels": 4}


def test_a_killed_shard_continues_and_ends_with_the_same_bytes(prepared, colors, monkeypatch):
    path = Layout(prepared.paths.out).features("clip", 0)
    run(prepared)
    undisturbed = path.read_bytes()
    path.unlink()
    original = colors.dense
    seen = []

    def dies_at_the_fourth(self, image):
        seen.append(image)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return original(self, image)

    monkeypatch.setattr(colors, "dense", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(prepared)
    run(prepared)
    assert len(seen) == 4 + 2
    assert path.read_bytes() == undisturbed


def test_a_missing_image_is_found_before_the_model_is_loaded(prepared, monkeypatch):
    from zspl.features import clip

    monkeypatch.setattr(clip, "build", None)
    (prepared.paths.out / "image_2.png").unlink()
    with pytest.raises(DataError, match=r"image_2\.png: no such image"):
        run(prepared)


def test_an_unknown_encoder_is_refused(prepared):
    with pytest.raises(SettingsError, match=r"no embed\.gem; there are: clip"):
        embed.run(prepared, Silent(), encoder="gem", shard=0)
