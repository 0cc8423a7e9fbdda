"""label: label maps, confidences and segments of all shards, with a calibrated threshold."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from zspl.errors import DataError, SettingsError
from zspl.io.layout import Layout
from zspl.io.segments import read_segments
from zspl.labeling import region_pool
from zspl.observer import Silent
from zspl.settings import Label
from zspl.stages import embed, label, propose

IDS = [f"image_{k}" for k in range(8)]


@pytest.fixture
def annotated(prepared, colors):
    for shard in (0, 1):
        propose.run(prepared, Silent(), proposer="superpixels", shard=shard)
        embed.run(prepared, Silent(), encoder="clip", shard=shard)
    return prepared


def run(settings, variant="region"):
    return label.run(settings, Silent(), variant=variant)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def with_labeler(settings, variant, **changes):
    values = settings.label.model_dump()
    values["variants"][variant]["labeler"].update(changes)
    return settings.model_copy(update={"label": Label.model_validate(values)})


def test_a_variant_has_a_label_map_and_a_confidence_for_every_image(annotated):
    summary = run(annotated)
    folder = Layout(annotated.paths.out).labels("region")
    expected = {f"{name}{suffix}" for name in IDS for suffix in (".png", ".confidence.png")}
    assert set(content(folder)) == expected | {"threshold.json", "segments.parquet", "images.csv"}
    hits = total = 0
    for name in IDS:
        found = Image.open(folder / f"{name}.png")
        assert found.mode == "P"
        truth = np.array(Image.open(annotated.paths.out / "masks" / f"{name}.png"))
        hits += (np.array(found) == truth).sum()
        total += truth.size
    assert hits / total > 0.9
    assert summary["images"] == 8
    assert summary["calibration_miou"] > 0.8
    assert not Layout(annotated.paths.out).work("label", "region").exists()


def test_the_segment_table_covers_all_images(annotated):
    run(annotated)
    rows = read_segments(Layout(annotated.paths.out).labels("region") / "segments.parquet")
    assert list(rows) == IDS
    assert all(sum(row.area for row in segments) == 24 * 32 for segments in rows.values())


def test_the_threshold_comes_from_labeled_and_held_out_images_only(annotated):
    run(annotated)
    folder = Layout(annotated.paths.out).labels("region")
    chosen = json.loads((folder / "threshold.json").read_text())
    assert chosen["images"] == 4
    assert chosen["split"] == "few"
    assert chosen["miou"] == max(point["miou"] for point in chosen["curve"])
    for name in ("image_0", "image_4", "image_6", "image_7"):
        (annotated.paths.out / "masks" / f"{name}.png").unlink()
    before = content(folder)
    run(annotated)
    assert content(folder) == before


def test_a_fixed_threshold_reads_no_mask_at_all(annotated):
    for name in IDS:
        (annotated.paths.out / "masks" / f"{name}.png").unlink()
    run(annotated, "pixel")
    folder = Layout(annotated.paths.out).labels("pixel")
    assert json.loads((folder / "threshold.json").read_text()) == {
        "calibrated": False,
        "threshold": 0.7,
    }


def rows(folder):
    with (folder / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_threshold_json_says_what_to_expect_and_why(annotated):
    summary = run(annotated)
    chosen = json.loads(
        (Layout(annotated.paths.out).labels("region") / "threshold.json").read_text()
    )
    assert chosen["decision"]["threshold"] == chosen["threshold"]
    assert chosen["decision"]["confidence"] is None
    assert chosen["expected"]["low"] <= chosen["expected"]["miou"] <= chosen["expected"]["high"]
    assert set(chosen["expected"]["iou"]) <= {"background", "red", "green", "blue"}
    assert summary["expected_miou"] == chosen["expected"]["miou"]
    assert chosen["verdict"] == "Caution"
    assert chosen["sentence"].startswith("Caution by rule of thumb: expected mIoU")
    assert "4 images" in chosen["sentence"]
    assert chosen["reliability"]["before"] == chosen["reliability"]["after"]


def test_calibrated_confidence_moves_no_label(annotated):
    run(annotated)
    folder = Layout(annotated.paths.out).labels("region")
    before = content(folder)
    run(with_labeler(annotated, "region", confidence="calibrated"))
    after = content(folder)
    maps = [name for name in before if name.endswith(".png") and "confidence" not in name]
    assert len(maps) == len(IDS)
    assert all(before[name] == after[name] for name in maps)
    assert any(before[f"{n}.confidence.png"] != after[f"{n}.confidence.png"] for n in IDS)
    chosen = json.loads(after["threshold.json"])
    assert chosen["threshold"] == json.loads(before["threshold.json"])["threshold"]
    assert chosen["decision"]["confidence"]["unclaimed"]["temperature"] > 0
    errors = chosen["reliability"]
    assert errors["after"]["ece"] < errors["before"]["ece"]


def test_a_fixed_threshold_may_still_have_its_confidence_calibrated(annotated):
    run(with_labeler(annotated, "pixel", confidence="calibrated"), "pixel")
    folder = Layout(annotated.paths.out).labels("pixel")
    chosen = json.loads((folder / "threshold.json").read_text())
    assert (chosen["threshold"], chosen["calibrated"], chosen["curve"]) == (0.7, False, [])
    assert chosen["decision"]["confidence"] is not None
    assert chosen["split"] == "few"


def test_thresholds_per_class_can_be_asked_for(annotated):
    run(with_labeler(annotated, "region", threshold="calibrated_per_class"))
    folder = Layout(annotated.paths.out).labels("region")
    chosen = json.loads((folder / "threshold.json").read_text())
    assert chosen["calibrated"]
    assert chosen["class_thresholds"] == {}


def test_the_table_of_images_has_the_most_doubtful_first(annotated):
    run(annotated)
    folder = Layout(annotated.paths.out).labels("region")
    found = rows(folder)
    assert sorted(row["image_id"] for row in found) == IDS
    doubts = [float(row["doubt"]) for row in found]
    assert doubts == sorted(doubts, reverse=True)
    for row in found:
        assert float(row["coverage"]) == 1
        assert float(row["conflict"]) == 0
        sure = np.array(Image.open(folder / f"{row['image_id']}.confidence.png"))
        assert float(row["doubt"]) == pytest.approx(1 - sure.mean() / 255, abs=0.003)


def test_without_proposals_there_is_no_coverage_to_tell(annotated):
    run(annotated, "pixel")
    found = rows(Layout(annotated.paths.out).labels("pixel"))
    assert {(row["coverage"], row["conflict"]) for row in found} == {("", "")}


def test_a_killed_variant_continues_and_ends_with_the_same_bytes(annotated, monkeypatch):
    folder = Layout(annotated.paths.out).labels("region")
    run(annotated)
    undisturbed = content(folder)
    original = region_pool.RegionPool.score
    scored = []

    def dies_at_the_seventh(self, inputs):
        scored.append(inputs.image_id)
        if len(scored) == 7:
            raise KeyboardInterrupt
        return original(self, inputs)

    monkeypatch.setattr(region_pool.RegionPool, "score", dies_at_the_seventh)
    with pytest.raises(KeyboardInterrupt):
        run(annotated)
    run(annotated)
    assert scored == [*IDS[1:4], "image_5", *IDS[:3], *IDS[2:]]
    assert content(folder) == undisturbed


def test_ready_label_maps_need_neither_proposals_nor_features(prepared):
    ready = prepared.paths.out / "ready"
    ready.mkdir()
    for name in IDS:
        truth = prepared.paths.out / "masks" / f"{name}.png"
        (ready / f"{name}.png").write_bytes(truth.read_bytes())
    run(prepared, "ready")
    folder = Layout(prepared.paths.out).labels("ready")
    for name in IDS:
        found = np.array(Image.open(folder / f"{name}.png"))
        assert np.array_equal(found, np.array(Image.open(ready / f"{name}.png")))
        assert (np.array(Image.open(folder / f"{name}.confidence.png")) == 255).all()
    assert json.loads((folder / "threshold.json").read_text())["threshold"] is None
    (ready / "image_4.png").unlink()
    with pytest.raises(DataError, match=r"image_4\.png: no such label map \(1 of 8"):
        run(prepared, "ready")


def test_changed_ready_labels_are_read_again(prepared, monkeypatch):
    ready = prepared.paths.out / "ready"
    ready.mkdir()
    for name in IDS:
        truth = prepared.paths.out / "masks" / f"{name}.png"
        (ready / f"{name}.png").write_bytes(truth.read_bytes())
    monkeypatch.setattr(label.atomic, "publish", lambda *_: None)
    monkeypatch.setattr(label.shutil, "rmtree", lambda *_: None)
    run(prepared, "ready")
    monkeypatch.undo()
    Image.fromarray(np.full((24, 32), 3, np.uint8)).save(ready / "image_0.png")
    run(prepared, "ready")
    found = Layout(prepared.paths.out).labels("ready") / "image_0.png"
    assert (np.array(Image.open(found)) == 3).all()


def test_inputs_that_are_missing_or_of_other_classes_are_refused(annotated, colors):
    layout = Layout(annotated.paths.out)
    classes = json.loads(layout.classes.read_text())
    classes["prompts"] = ["red", "green", "navy"]
    layout.classes.write_text(json.dumps(classes))
    with pytest.raises(DataError, match="red, green, blue, now they are red, green, navy"):
        run(annotated, "pixel")
    layout.features("clip", 1).unlink()
    with pytest.raises(DataError, match=r"1\.safetensors: no such file; run the stage embed"):
        run(annotated, "pixel")


def test_a_labeled_image_without_mask_or_shard_is_refused(annotated):
    layout = Layout(annotated.paths.out)
    mask = annotated.paths.out / "masks" / "image_2.png"
    content_of_mask = mask.read_bytes()
    mask.unlink()
    with pytest.raises(DataError, match="mask of the labeled image 'image_2' is missing"):
        run(annotated)
    mask.write_bytes(content_of_mask)
    layout.shard(1).write_text("image_6\nimage_7\n")
    with pytest.raises(DataError, match="'image_5' is labeled but in no shard"):
        run(annotated)


def test_a_variant_names_exactly_what_its_labeler_reads(annotated):
    with pytest.raises(SettingsError, match="there are: pixel, ready, region"):
        run(annotated, "sam")
    needless = with_labeler(annotated, "region", name="pixel_argmax")
    with pytest.raises(SettingsError, match="pixel_argmax reads no proposals; set it to none"):
        run(needless)
    lacking = with_labeler(annotated, "pixel", name="region_pool")
    with pytest.raises(SettingsError, match="needs proposals; name a key of propose"):
        run(lacking, "pixel")


def test_unassigned_pixels_can_be_ignored(annotated):
    run(with_labeler(annotated, "region", unassigned=255, threshold=0.9))
    folder = Layout(annotated.paths.out).labels("region")
    values = {int(v) for name in IDS for v in np.unique(Image.open(folder / f"{name}.png"))}
    assert 0 not in values
    assert 255 in values
