from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as reference

from zspl.data.loading import CONFIDENCE, EVERYTHING, MEAN, STD, TrainingData, normalise
from zspl.errors import DataError
from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.records import ImageRecord, Split
from zspl.settings import Train

TABLE = ClassTable.plain(("background", "red", "green"), prompts=("red", "green"))
LABELED = tuple(f"l{k}" for k in range(3))
UNLABELED = tuple(f"u{k}" for k in range(8))
SIDE = 24
RECIPE = {
    "crop_size": SIDE,
    "scale_range": (0.5, 2.0),
    "batch_labeled": 2,
    "batch_unlabeled": 2,
    "cutmix_partner": "same_image",
    "views": "pillow",
    "accumulate": 1,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images whose red channel is 100 times the class id; pseudo labels equal the masks."""
    folder = tmp_path_factory.mktemp("data")
    for number, image_id in enumerate((*LABELED, *UNLABELED)):
        rng = np.random.default_rng(number)
        label = rng.integers(0, 3, (18, 26), dtype=np.uint8)
        pixels = np.stack([label * 100, label * 0 + number, label * 0 + 128], axis=-1)
        Image.fromarray(pixels).save(folder / f"{image_id}.png")
        write_label(folder / "masks" / f"{image_id}.png", label)
        sure = Image.fromarray(label * 100 + 1)
        sure.save(folder / "masks" / f"{image_id}.confidence.png")
    return folder


@pytest.fixture
def make(folder):
    """Build TrainingData; the real `Train` section needs keys that loading does not read."""

    def build(*, seed=0, labels=True, unlabeled=UNLABELED, **changes):
        records = {
            i: ImageRecord(
                image_id=i,
                image_path=folder / f"{i}.png",
                label_path=folder / "masks" / f"{i}.png" if i in LABELED else None,
                digest="",
            )
            for i in (*LABELED, *UNLABELED)
        }
        split = Split(name="s", labeled=LABELED, holdout=(), unlabeled=unlabeled, val=())
        train = Train.model_construct(**(RECIPE | changes))
        pseudo = folder / "masks" if labels else None
        return TrainingData(records, split, TABLE, train, seed, pseudo)

    return build


def leaves(batch):
    """Every tensor of what `batches` yields."""
    for part in batch:
        for name in () if part is None else part.__dataclass_fields__:
            value = getattr(part, name)
            if value is not None:
                yield value


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True))


def pixels(image):
    """Undo the normalisation: UInt8[B 3 S S] as a float tensor."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((image * std + mean) * 255).round()


def image_numbers(batch_image):
    return [int(crop[1].max()) for crop in pixels(batch_image)]


def test_normalise_equals_torchvision():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    expected = reference.normalize(reference.to_tensor(image), MEAN, STD)
    torch.testing.assert_close(normalise(image), expected, rtol=0, atol=0)


def test_a_batch_does_not_depend_on_the_batches_before(make):
    walked = list(make().batches(0, 9))
    (alone,) = make().batches(8, 9)
    assert same(alone, walked[8])


def test_workers_change_no_bit(make):
    here = list(make().batches(3, 8))
    there = list(make().batches(3, 8, workers=2))
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_the_cache_changes_no_bit(make, monkeypatch):
    cached = list(make().batches(0, 6))
    monkeypatch.setattr("zspl.data.stock.CACHE_BYTES", 0)
    small = make()
    small._stock._room = 0
    assert all(same(a, b) for a, b in zip(cached, small.batches(0, 6), strict=True))
    assert not small._stock._images


def test_seeds_give_other_batches(make):
    (first,), (second,) = make(seed=0).batches(0, 1), make(seed=1).batches(0, 1)
    assert not same(first, second)


def test_image_mask_pseudo_label_and_padding_share_one_geometry(make):
    data = make(scale_range=(1.0, 1.0))
    for step in range(4):
        unlabeled, labeled = data.unlabeled_batch(step), data.labeled_batch(step)
        red = pixels(unlabeled.weak)[:, 0]
        inside = ~unlabeled.padding
        assert torch.equal(red[inside], unlabeled.zero_shot[inside] * 100.0)
        assert (unlabeled.zero_shot[unlabeled.padding] == 255).all()
        assert unlabeled.padding.any()
        known = labeled.label != 255
        assert torch.equal(pixels(labeled.image)[:, 0][known], labeled.label[known] * 100.0)


def test_the_padding_is_black_before_normalisation_and_its_size_follows_the_resize(make):
    data = make(scale_range=(0.5, 0.5))
    batch = data.unlabeled_batch(0)
    assert (~batch.padding).sum(dim=(1, 2)).tolist() == [13 * 9, 13 * 9]
    black = pixels(batch.weak).permute(0, 2, 3, 1)[batch.padding]
    assert (black == 0).all()


def test_the_partner_shows_the_same_images_under_other_draws(make):
    data = make()
    for step in range(4):
        main, partner = data.unlabeled_batch(step, 0), data.unlabeled_batch(step, 1)
        assert image_numbers(main.weak) == image_numbers(partner.weak)
        assert not torch.equal(main.weak, partner.weak)


def test_the_two_strong_views_differ_in_colours_and_boxes(make):
    data = make()
    batches = [data.unlabeled_batch(step) for step in range(8)]
    assert any(not torch.equal(batch.strong1, batch.strong2) for batch in batches)
    assert any(not torch.equal(batch.box1, batch.box2) for batch in batches)
    assert any(not torch.equal(batch.strong1, batch.weak) for batch in batches)


def test_labeled_ids_repeat_to_the_length_of_the_unlabeled_list(make):
    data = make()
    needs = {"labeled", "unlabeled"}
    assert data.iterations_per_epoch(needs) == 4

    seen = Counter(n for step in range(4) for n in image_numbers(data.labeled_batch(step).image))

    assert seen == {0: 3, 1: 3, 2: 2}


def test_a_supervised_epoch_visits_each_labeled_image_once(make):
    data = make(batch_labeled=1)
    assert data.iterations_per_epoch({"labeled"}) == 3

    batches = list(data.batches(0, 3, needs={"labeled"}))

    assert sorted(image_numbers(batch[0].image)[0] for batch in batches) == [0, 1, 2]
    assert all(batch[1] is None and batch[2] is None for batch in batches)


def test_labeled_images_beyond_the_unlabeled_list_are_used_too(make):
    data = make(unlabeled=UNLABELED[:2], batch_labeled=1, batch_unlabeled=1)
    assert data.iterations_per_epoch(EVERYTHING) == 2
    seen = {image_numbers(data.labeled_batch(step).image)[0] for step in range(3)}
    assert seen == {0, 1, 2}


def test_an_epoch_is_one_pass_over_the_unlabeled_images_whatever_the_labeled_batch(make):
    data = make(batch_labeled=1, batch_unlabeled=4)
    assert data.iterations_per_epoch(EVERYTHING) == 2
    seen = [n for step in range(2) for n in image_numbers(data.unlabeled_batch(step).weak)]
    assert sorted(seen) == list(range(3, 11))


@pytest.mark.parametrize("name", ["l1.png", "u2.png", "masks/l0.png"])
def test_a_missing_image_or_mask_is_named_before_the_first_batch(make, folder, name):
    (folder / name).rename(folder / "away.png")
    try:
        with pytest.raises(DataError, match=rf"{name}: no such (image|mask)"):
            make(labels=False)
    finally:
        (folder / "away.png").rename(folder / name)


def test_pseudo_labels_are_left_out_when_the_method_reads_none(make):
    for data in (make(), make(labels=False)):
        for _, main, partner in data.batches(0, 2, needs={"labeled", "unlabeled"}):
            assert main.zero_shot is None
            assert partner.zero_shot is None


def test_confidence_goes_through_the_geometry_of_its_label(make):
    needs = EVERYTHING | {CONFIDENCE}
    for _, *both in make().batches(0, 4, needs=needs):
        for batch in both:
            inside = ~batch.padding
            sure = batch.zero_shot_confidence * 255
            torch.testing.assert_close(sure[inside], batch.zero_shot[inside] * 100.0 + 1)
            assert (sure[batch.padding] == 0).all()
            assert batch.padding.any()


def test_reading_the_confidence_changes_no_other_bit(make):
    without = list(make().batches(0, 4))
    for one, other in zip(
        without, make().batches(0, 4, needs=EVERYTHING | {CONFIDENCE}), strict=True
    ):
        assert one[1].zero_shot_confidence is None
        bare = [replace(batch, zero_shot_confidence=None) for batch in other[1:]]
        assert same(one, (other[0], *bare))


def test_a_missing_confidence_is_found_before_the_first_batch(make, folder):
    path = folder / "masks" / "u3.confidence.png"
    path.rename(folder / "away.png")
    try:
        assert len(list(make().batches(0, 1))) == 1
        with pytest.raises(DataError, match=r"u3\.confidence\.png: no such confidence"):
            next(make().batches(0, 1, needs=EVERYTHING | {CONFIDENCE}))
    finally:
        (folder / "away.png").rename(path)


def test_a_method_that_needs_pseudo_labels_must_get_some(make):
    with pytest.raises(ValueError, match="needs pseudo labels"):
        next(make(labels=False).batches(0, 1))


def test_a_split_without_unlabeled_images_serves_supervised_training_only(make):
    data = make(unlabeled=(), labels=False)
    assert len(list(data.batches(0, 2, needs={"labeled"}))) == 2
    with pytest.raises(DataError, match="split s: has no unlabeled images"):
        next(data.batches(0, 1, needs={"labeled", "unlabeled"}))


def test_a_missing_pseudo_label_is_found_before_the_first_batch(make, folder):
    (folder / "masks" / "u3.png").rename(folder / "away.png")
    try:
        with pytest.raises(DataError, match=r"u3\.png: no such pseudo label"):
            make()
    finally:
        (folder / "away.png").rename(folder / "masks" / "u3.png")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pseudo_label_with_an_unknown_class_is_one_line(make, folder, workers):
    path = folder / "masks" / "u1.png"
    before = path.read_bytes()
    write_label(path, np.full((18, 26), 7, np.uint8))
    try:
        with pytest.raises(DataError) as caught:
            list(make().batches(0, 4, workers=workers))
    finally:
        path.write_bytes(before)
    assert str(caught.value) == (
        f"{path}: holds the class id 7, expected 0..2 or 255; make the pseudo labels again"
    )
