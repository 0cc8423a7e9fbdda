import numpy as np
import pytest
import torch
from PIL import Image

from zspl.data.label_quality import LabelQuality, measure
from zspl.errors import DataError
from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.records import ImageRecord

TABLE = ClassTable.plain(("background", "red", "green"), prompts=("red", "green"))


@pytest.fixture
def photos(tmp_path):
    """Two photos with masks, pseudo labels and confidences, void and unclaimed pixels included."""
    draw, records = np.random.default_rng(0), []
    (tmp_path / "labels").mkdir()
    for name in "ab":
        size = (9, 12) if name == "a" else (10, 7)
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
        for folder in ("masks", "labels"):
            ids = draw.choice(np.array([0, 1, 2, 255], np.uint8), size)
            write_label(tmp_path / folder / f"{name}.png", ids)
        levels = draw.choice(np.array([0, 3, 128, 255], np.uint8), size)
        Image.fromarray(levels).save(tmp_path / "labels" / f"{name}.confidence.png")
        paths = {
            "image_path": tmp_path / f"{name}.png",
            "label_path": tmp_path / f"masks/{name}.png",
        }
        records.append(ImageRecord(image_id=name, digest="", **paths))
    return records


def pixels(records, folder):
    for record in records:
        truth = np.array(Image.open(record.label_path))
        claim = np.array(Image.open(folder / f"{record.image_id}.png"))
        level = np.array(Image.open(folder / f"{record.image_id}.confidence.png"))
        yield from zip(truth.flat, claim.flat, level.flat, strict=True)


def test_every_claimed_pixel_with_a_mask_is_counted_once(photos, tmp_path):
    right, wrong = np.zeros((2, 3, 256), np.int64)
    for truth, claim, level in pixels(photos, tmp_path / "labels"):
        if truth != 255 and claim != 255:
            (right if truth == claim else wrong)[claim, level] += 1
    found = measure(photos, TABLE, pseudo_labels=tmp_path / "labels")
    assert np.array_equal(found.right, right)
    assert np.array_equal(found.wrong, wrong)
    assert right.sum() > 0
    assert wrong.sum() > 0


@pytest.mark.parametrize("precision", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_the_least_confidence_is_where_the_precision_is_reached(precision):
    draw = torch.Generator().manual_seed(0)
    right, wrong = (torch.randint(0, 3, (5, 256), generator=draw) for _ in range(2))
    wrong[0] = 0
    right[1] = 0
    right[2] = wrong[2] = 0
    rest = {"claims": torch.zeros(5, 6).long(), "images": torch.zeros(5).long()}
    found = LabelQuality(right=right, wrong=wrong, **rest).min_confidences(precision)
    for c in range(5):
        expected = 2.0
        for level in range(255, -1, -1):
            hits, misses = right[c, level:].sum().item(), wrong[c, level:].sum().item()
            if hits + misses and hits / (hits + misses) >= precision:
                expected = level / 255
        assert found[c].item() == pytest.approx(expected)


def test_every_pixel_with_a_mask_is_a_claim_or_unclaimed(photos, tmp_path):
    claims, shown = np.zeros((3, 4), np.int64), [set(), set(), set()]
    for record in photos:
        for truth, claim, _ in pixels([record], tmp_path / "labels"):
            if truth != 255:
                claims[truth, 3 if claim == 255 else claim] += 1
                shown[truth].add(record.image_id)
    found = measure(photos, TABLE, pseudo_labels=tmp_path / "labels")
    assert np.array_equal(found.claims, claims)
    assert found.images.tolist() == [len(ids) for ids in shown]
    assert claims[:, 3].sum() > 0


def test_the_likelihood_mixes_what_was_seen_with_one_image_of_common_belief():
    claims = [[6, 2, 0, 2], [1, 4, 0, 5], [0, 0, 0, 0]]
    images = [4, 1, 0]
    rest = {"right": torch.zeros(3, 256).long(), "wrong": torch.zeros(3, 256).long()}
    quality = LabelQuality(claims=torch.tensor(claims), images=torch.tensor(images), **rest)
    found = quality.log_likelihood()
    right = (6 / 10 + 4 / 10) / 2
    for true in range(3):
        total = sum(claims[true]) or 1
        for claim in range(4):
            belief = right if claim == true else (1 - right) / 3
            expected = (images[true] * claims[true][claim] / total + belief) / (images[true] + 1)
            assert found[claim, true].exp().item() == pytest.approx(expected)
    assert found.exp().sum(dim=0).tolist() == pytest.approx([1, 1, 1])


def test_a_labeled_image_without_a_pseudo_label_is_one_line(photos, tmp_path):
    (tmp_path / "labels" / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png: a labeled image has no pseudo label") as caught:
        measure(photos, TABLE, pseudo_labels=tmp_path / "labels")
    assert "\n" not in str(caught.value)
