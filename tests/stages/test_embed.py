"""embed: features and texts of a shard, the same bytes however often it was killed."""

import numpy as np
import pytest
import torch
from PIL import Image

from zspl.errors import DataError, SettingsError
from zspl.io.classes import ClassTable
from zspl.io.features import FeatureFile
from zspl.io.layout import Layout
from zspl.io.proposals import ProposalFile, write_proposals
from zspl.observer import Silent
from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings
from zspl.stages import embed, label, propose


def run(settings, shard=0):
    return embed.run(settings, Silent(), encoder="clip", shard=shard)


def run_on_segments(settings, shard=0):
    return embed.run(settings, Silent(), encoder="crops", shard=shard, proposals="superpixels")


@pytest.fixture
def looking(prepared, colors, monkeypatch):
    """Let `crops` be an encoder that embeds a segment by its mean colour, on superpixels."""
    from zspl.features import crops

    class SegmentColors(colors):
        sees_segments = True

        def dense_batch(self, images, proposals=None):
            found = []
            for image, segments in zip(images, proposals, strict=True):
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
                pixels = torch.cat([pixels - pixels.amin(0), pixels.amin(0, keepdim=True)])
                means = [pixels[:, mask].mean(dim=1) for mask in segments.masks]
                found.append(
                    DenseFeatures(
                        grid=self.dense(image).grid,
                        image_size=(image.height, image.width),
                        segments=torch.stack(means) if means else torch.zeros(0, 4),
                    )
                )
            return found

    monkeypatch.setattr(crops, "build", lambda _: SegmentColors())
    for shard in prepared.prepare.shards:
        propose.run(prepared, Silent(), proposer="superpixels", shard=shard)
    variant = prepared.label.variants["region"].model_copy(update={"features": "crops-superpixels"})
    labels = prepared.label.model_copy(update={"variants": {"crops": variant}})
    return prepared.model_copy(
        update={"embed_segments": {"crops": {"model": "tiny"}}, "label": labels}
    )


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


def test_an_encoder_of_segments_gets_those_of_its_proposer(looking):
    run_on_segments(looking)
    layout = Layout(looking.paths.out)
    file = FeatureFile(layout.features("crops-superpixels", 0))
    segments = ProposalFile(layout.proposals("superpixels", 0)).read("image_2")
    image = Image.open(looking.paths.out / "image_2.png")
    pixels = torch.from_numpy(np.array(image)) / 255
    mean = pixels[segments.masks[3]].mean(dim=0)
    found = file.read("image_2").segments
    assert found.shape == (len(segments.masks), 4)
    assert found[3, 3] == pytest.approx(float(pixels[segments.masks[3]].amin(1).mean()), abs=1e-3)
    assert torch.allclose(found[3, :3] + found[3, 3], mean, atol=2e-3)


def test_label_names_segments_by_what_the_encoder_saw_in_them(looking):
    for shard in looking.prepare.shards:
        run_on_segments(looking, shard)
    summary = label.run(looking, Silent(), variant="crops")
    assert summary["images"] == 8
    assert summary["calibration_miou"] > 0.7


def test_label_refuses_features_that_saw_other_segments(looking):
    layout = Layout(looking.paths.out)
    for shard in looking.prepare.shards:
        run_on_segments(looking, shard)
    path = layout.proposals("superpixels", 0)
    file = ProposalFile(path)
    fewer = {}
    for name in file.sizes:
        old = file.read(name)
        fewer[name] = SegmentProposals(
            masks=old.masks[1:],
            predicted_iou=old.predicted_iou[1:],
            stability_score=old.stability_score[1:],
        )
    write_proposals(path, fewer.items())
    with pytest.raises(DataError, match=r"made for \d+ segments, now .* run the stage embed again"):
        label.run(looking, Silent(), variant="crops")


def test_a_killed_shard_starts_over_when_the_segments_changed(looking, monkeypatch):
    run_on_segments(looking)
    path = Layout(looking.paths.out).features("crops-superpixels", 0)
    undisturbed = path.read_bytes()
    work = Layout(looking.paths.out).work("embed", "crops-superpixels", "0")
    seen = []
    read = embed.read_image

    def dies_at_the_third(path):
        seen.append(path.stem)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(embed, "read_image", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_on_segments(looking)
    assert len(list((work / "images").iterdir())) == 2
    run_on_segments(looking)
    assert seen[2:] == ["image_2", "image_2", "image_3", "image_4"]
    assert path.read_bytes() == undisturbed

    seen[:] = []
    with pytest.raises(KeyboardInterrupt):
        run_on_segments(looking)
    changed = looking.model_copy(update={"propose": {"superpixels": {"segments": 9}}})
    propose.run(changed, Silent(), proposer="superpixels", shard=0)
    seen[:] = ["counted", "so that", "nothing dies"]
    run_on_segments(changed)
    assert len(seen) == 3 + 5


def test_an_encoder_in_the_wrong_section_is_one_clear_line(looking):
    both = {"clip": {"model": "tiny"}, "crops": {"model": "tiny"}}
    swapped = looking.model_copy(update={"embed": both, "embed_segments": both})
    with pytest.raises(
        SettingsError, match=r"embed\.crops: .* looks at segments; move it to embed_"
    ):
        embed.run(swapped, Silent(), encoder="crops", shard=0)
    with pytest.raises(
        SettingsError, match=r"embed_segments\.clip: .* no segments; move it to embed$"
    ):
        embed.run(swapped, Silent(), encoder="clip", shard=0, proposals="superpixels")
    with pytest.raises(SettingsError, match=r"no propose\.sam; there are: superpixels"):
        embed.run(looking, Silent(), encoder="crops", shard=0, proposals="sam")


def test_missing_segments_or_some_of_another_size_name_the_stage_to_run(looking):
    path = Layout(looking.paths.out).proposals("superpixels", 0)
    masks = torch.ones(1, 24, 31, dtype=torch.bool)
    score = torch.ones(1)
    other = SegmentProposals(masks=masks, predicted_iou=score, stability_score=score)
    names = list(ProposalFile(path).sizes)
    write_proposals(path, [(name, other) for name in names])
    with pytest.raises(DataError, match=r"is 32x24 but its proposals were made for 31x24; run"):
        run_on_segments(looking)
    path.unlink()
    with pytest.raises(DataError, match="run the stage propose first"):
        run_on_segments(looking)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_a_gpu_gets_several_images_per_pass(prepared, colors, monkeypatch, device):
    passes = []
    original = colors.dense_batch

    def counted(self, images, proposals=None):
        passes.append(len(images))
        return original(self, images, proposals)

    monkeypatch.setattr(colors, "dense_batch", counted)
    monkeypatch.setattr(embed.devices, "chosen", lambda: torch.device(device))
    monkeypatch.setattr(embed, "_PER_PASS_OF_A_GPU", 2)
    run(prepared)
    assert passes == ([1] * 5 if device == "cpu" else [2, 2, 1])


def test_synonyms_and_background_texts_are_embedded_in_the_order_of_the_table(
    prepared, colors, monkeypatch
):
    layout = Layout(prepared.paths.out)
    names, prompts = ("background", "a", "b"), ("red|crimson", "green")
    ClassTable.plain(names, prompts=prompts, background=("sky",)).write(layout.classes)
    monkeypatch.setattr(
        colors,
        "text",
        lambda _, texts: TextEmbeddings(vectors=torch.eye(4), class_names=tuple(texts)),
    )
    run(prepared)
    file = FeatureFile(layout.features("clip", 0))
    assert file.text.class_names == ("red", "crimson", "green", "sky")
