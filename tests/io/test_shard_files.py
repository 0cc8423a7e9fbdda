"""Proposals, features and segment tables on disk."""

import errno
import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from zspl.errors import DataError, DiskError
from zspl.io.features import FeatureFile, write_features
from zspl.io.proposals import ProposalFile, write_proposals
from zspl.io.segments import read_segments, write_segments
from zspl.records import DenseFeatures, SegmentProposals, SegmentRow, TextEmbeddings


def proposals(seed, number, height, width):
    random = torch.Generator().manual_seed(seed)
    return SegmentProposals(
        masks=torch.rand(number, height, width, generator=random) > 0.6,
        predicted_iou=torch.rand(number, generator=random).sort(descending=True).values,
        stability_score=torch.rand(number, generator=random),
    )


def text(*names):
    vectors = torch.nn.functional.normalize(torch.randn(len(names), 6), dim=1)
    return TextEmbeddings(vectors=vectors, class_names=names)


def test_proposals_come_back_exactly(tmp_path):
    stored = {"b": proposals(0, 5, 7, 9), "none": proposals(1, 0, 4, 6), "a": proposals(2, 1, 3, 3)}
    write_proposals(tmp_path / "0.parquet", stored.items())
    file = ProposalFile(tmp_path / "0.parquet")
    assert file.sizes == {"b": (7, 9), "none": (4, 6), "a": (3, 3)}
    for name, expected in stored.items():
        found = file.read(name)
        for field in ("masks", "predicted_iou", "stability_score"):
            assert torch.equal(getattr(found, field), getattr(expected, field))


def test_equal_proposals_and_features_give_equal_bytes(tmp_path):
    names = text("cat", "dog", "bird")
    dense = {
        f"image{k}": DenseFeatures(grid=torch.full((6, 2, 3), float(k)), image_size=(k + 1, 9))
        for k in range(12)
    }
    digests = set()
    for k in range(3):
        write_proposals(tmp_path / f"{k}.parquet", [("a", proposals(0, 4, 8, 8))])
        write_features(tmp_path / f"{k}.safetensors", dense, names)
        files = [tmp_path / f"{k}.parquet", tmp_path / f"{k}.safetensors"]
        digests.add(tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))
    assert len(digests) == 1


def test_features_come_back_in_half_precision_with_their_texts(tmp_path):
    grid = torch.randn(6, 2, 3)
    names = text("cat", "dog")
    write_features(tmp_path / "0", {"a": DenseFeatures(grid=grid, image_size=(20, 30))}, names)
    file = FeatureFile(tmp_path / "0")
    assert torch.equal(file.read("a").grid, grid.half().float())
    assert file.read("a").image_size == (20, 30)
    assert file.text.class_names == ("cat", "dog")
    assert torch.equal(file.text.vectors, names.vectors)


def test_embeddings_of_segments_come_back_and_images_without_them_cost_no_byte(tmp_path):
    grid, names = torch.randn(6, 2, 3), text("cat", "dog")
    segments = torch.randn(4, 6)
    plain = DenseFeatures(grid=grid, image_size=(20, 30))
    none = DenseFeatures(grid=grid, image_size=(20, 30), segments=segments[:0])
    looked = DenseFeatures(grid=grid, image_size=(20, 30), segments=segments)
    write_features(tmp_path / "0", {"plain": plain, "none": none, "looked": looked}, names)
    file = FeatureFile(tmp_path / "0")
    assert torch.equal(file.read("looked").segments, segments.half().float())
    assert torch.equal(file.read("looked").grid, grid.half().float())
    assert file.read("none").segments.shape == (0, 6)
    assert file.read("plain").segments is None
    write_features(tmp_path / "1", {"plain": plain}, names)
    assert set(safetensors.torch.load_file(tmp_path / "1")) == {"text", "grid/plain"}


def test_features_that_overflow_half_precision_are_refused(tmp_path):
    large, small = torch.full((6, 1, 1), 1e6), torch.ones(6, 1, 1)
    for dense in (
        DenseFeatures(grid=large, image_size=(2, 2)),
        DenseFeatures(grid=small, image_size=(2, 2), segments=large[:, :, 0].T),
        DenseFeatures(grid=small * float("nan"), image_size=(2, 2)),
    ):
        with pytest.raises(DataError, match="'a' are not finite"):
            write_features(tmp_path / "0", {"a": dense}, text("cat"))


@pytest.mark.parametrize(("reader", "stage"), [(ProposalFile, "propose"), (FeatureFile, "embed")])
def test_a_missing_damaged_or_foreign_file_names_the_stage_to_run(reader, stage, tmp_path):
    with pytest.raises(DataError, match=f"run the stage {stage} first"):
        reader(tmp_path / "gone")
    (tmp_path / "damaged").write_bytes(b"PAR1 is not enough")
    with pytest.raises(DataError, match=f"run the stage {stage} again"):
        reader(tmp_path / "damaged")
    write_proposals(tmp_path / "p", [("a", proposals(0, 1, 2, 2))])
    write_features(tmp_path / "f", {}, text("cat"))
    with pytest.raises(DataError, match=r"'other'; run the stage"):
        reader(tmp_path / stage[0].replace("e", "f")).read("other")


def test_segment_rows_come_back_exactly(tmp_path):
    row = SegmentRow(
        area=7, bbox=(1, 2, 3, 4), predicted_iou=0.9, stability_score=0.8,
        classes=(3, 1), cosines=(0.25, 0.1), probabilities=(0.7, 0.2), assigned=0,
    )  # fmt: skip
    write_segments(tmp_path / "s.parquet", [("a", [row, row]), ("b", []), ("c", [row])])
    assert read_segments(tmp_path / "s.parquet") == {"a": (row, row), "c": (row,)}
    with pytest.raises(DataError, match="run the stage label first"):
        read_segments(tmp_path / "gone.parquet")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_features(path, {}, text("cat")),
        lambda path: write_proposals(path, [("a", proposals(0, 1, 3, 3))]),
        lambda path: write_segments(path, []),
    ],
)
def test_a_full_disk_is_one_line_whichever_library_makes_the_bytes(tmp_path, monkeypatch, write):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match="no disk space left"):
        write(tmp_path / "0")
    assert list(tmp_path.iterdir()) == []
