"""The loader under `views: tensor`, against the one under `views: pillow`."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from zspl.data import prefetch
from zspl.data.loading import CONFIDENCE, EVERYTHING, STD, TrainingData
from zspl.data.order import Share
from zspl.data.views import finished
from zspl.errors import DataError
from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.records import ImageRecord, Split, each_tensor
from zspl.settings import Train

TABLE = ClassTable.plain(("background", "red", "green"), prompts=("red", "green"))
LABELED, UNLABELED = ("l0", "l1", "l2"), tuple(f"u{k}" for k in range(8))
EXACT = ("padding", "box1", "box2", "zero_shot", "zero_shot_confidence")
NEEDS = EVERYTHING | {CONFIDENCE}
SIDE = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Soft photos, wide and tall ones, some of them smaller than a crop."""
    folder = tmp_path_factory.mktemp("data")
    for number, image_id in enumerate((*LABELED, *UNLABELED)):
        rng = np.random.default_rng(number)
        size = (70, 52) if number % 2 else (40, 60)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{image_id}.png")
        label = rng.integers(0, 3, size[::-1], dtype=np.uint8)
        write_label(folder / "masks" / f"{image_id}.png", label)
        Image.fromarray(label * 100 + 1).save(folder / "masks" / f"{image_id}.confidence.png")
    return folder


@pytest.fixture
def make(folder):
    def build(views="tensor", *, seed=0, partner="same_image"):
        records = {
            i: ImageRecord(
                image_id=i,
                image_path=folder / f"{i}.png",
                label_path=folder / "masks" / f"{i}.png" if i in LABELED else None,
                digest="",
            )
            for i in (*LABELED, *UNLABELED)
        }
        split = Split(name="s", labeled=LABELED, holdout=(), unlabeled=UNLABELED, val=())
        recipe = Train.model_construct(
            crop_size=SIDE,
            scale_range=(0.5, 2.0),
            batch_labeled=4,
            batch_unlabeled=4,
            cutmix_partner=partner,
            views=views,
            accumulate=1,
        )
        return TrainingData(records, split, TABLE, recipe, seed, folder / "masks")

    return build


def tensors(loaded):
    """Every tensor of what a step learns from, by part and name."""
    return {
        (k, name): getattr(part, name)
        for k, part in enumerate(loaded)
        for name in (() if part is None else part.__dataclass_fields__)
        if getattr(part, name) is not None
    }


def same(first, second):
    ours, theirs = tensors(first), tensors(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def load(data, step, needs=NEEDS):
    return finished(data.load(step, needs))


@pytest.mark.parametrize("partner", ["same_image", "batch"])
def test_geometry_boxes_and_labels_are_those_of_pillow_and_the_pixels_nearly(make, partner):
    pillow, tensor = (make(views, partner=partner) for views in ("pillow", "tensor"))
    std = torch.tensor(STD).view(3, 1, 1)
    levels = []
    for step in range(6):
        theirs, ours = pillow.load(step, NEEDS), load(tensor, step)
        assert torch.equal(ours[0].label, theirs[0].label)
        pictures = [(ours[0].image, theirs[0].image)]
        for one, other in zip(ours[1:], theirs[1:], strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert all(torch.equal(getattr(one, k), getattr(other, k)) for k in EXACT)
                both = (("weak", "strong1", "strong2"), (one, other))
                pictures += [tuple(getattr(of, k) for of in both[1]) for k in both[0]]
        levels += [((a - b).abs() * std * 255).flatten() for a, b in pictures]
    apart = torch.cat(levels)
    assert apart.mean() < 0.25  # of 255 grey levels
    assert apart.quantile(0.999) < 4
    assert apart.max() < 16


@pytest.mark.parametrize("needs", [{"labeled"}, {"labeled", "unlabeled"}, EVERYTHING, NEEDS])
def test_methods_are_given_the_same_fields_of_the_same_types(make, needs):
    theirs, ours = (tensors(load(make(views), 0, needs)) for views in ("pillow", "tensor"))
    assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {
        k: (v.shape, v.dtype) for k, v in theirs.items()
    }


def test_a_step_does_not_depend_on_the_steps_before_and_repeats(make):
    walked = [finished(loaded) for loaded in make().batches(0, 6, needs=NEEDS)]
    (alone,) = make().batches(5, 6, needs=NEEDS)
    assert same(finished(alone), walked[5])
    assert not same(walked[4], walked[5])
    assert not same(load(make(seed=1), 5), walked[5])


def test_loading_processes_change_no_bit(make):
    here = list(make().batches(3, 9, needs=NEEDS))
    there = list(make().batches(3, 9, workers=2, needs=NEEDS))
    assert all(same(a, b) for a, b in zip(here, there, strict=True))
    assert len(there) == 6


@pytest.mark.parametrize(("processes", "micro_batches"), [(2, 1), (4, 1), (2, 2)])
def test_the_shares_of_processes_and_micro_batches_are_the_crops_of_the_whole(
    make, processes, micro_batches
):
    whole, data = tensors(load(make(), 3)), make()
    for process in range(processes):
        data._share = Share(process, processes, micro_batches)
        places = [place for place, _ in data._share.of("abcd")]
        loaded = data.load(3, NEEDS)
        parts = [
            finished(each_tensor(loaded, partial(_part, index=k, parts=micro_batches)))
            for k in range(micro_batches)
        ]
        for key, value in whole.items():
            ours = torch.cat([tensors(part)[key] for part in parts])
            assert torch.equal(ours, value[places]), key


def _part(tensor, index, parts):
    return tensor.chunk(parts)[index]


def test_only_bytes_leave_the_loader_but_for_the_few_numbers_of_the_draws(make):
    loaded = tensors(make(partner="batch").load(0, {"labeled", "unlabeled"}))
    assert {key for key, value in loaded.items() if value.dtype != torch.uint8} == {(1, "colours")}
    pixels = 8 * SIDE * SIDE
    maps = 4 * SIDE * SIDE  # labels of the labeled, padding and boxes of the unlabeled crops
    assert sum(v.nbytes for k, v in loaded.items() if k != (1, "colours")) == 3 * pixels + 2 * maps
    assert loaded[1, "colours"].nbytes < 1000


def test_an_error_in_a_loading_process_is_one_line(make, folder):
    path = folder / "masks" / "u1.png"
    before = path.read_bytes()
    write_label(path, np.full((52, 70), 7, np.uint8))
    try:
        with pytest.raises(DataError, match=r"u1\.png: ") as caught:
            list(make().batches(0, 4, workers=1))
    finally:
        path.write_bytes(before)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_memory_is_pinned_for_a_gpu_only(make, monkeypatch, device, pinned):
    asked = {}

    def loader(steps, **options):
        asked.update(options)
        return []

    monkeypatch.setattr(prefetch, "DataLoader", loader)
    monkeypatch.setattr(prefetch.devices, "chosen", lambda: torch.device(device))
    assert list(prefetch.prefetched(make().load, range(3), NEEDS, workers=1, ahead=4)) == []
    assert asked["pin_memory"] is pinned
    assert asked["prefetch_factor"] == 4


def test_a_step_pins_every_tensor_of_it(make, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    loaded = make().load(0, NEEDS)
    before, after = tensors(loaded), tensors(prefetch._Loaded(loaded).pin_memory().batches)
    assert all(torch.equal(after[key], value + 1) for key, value in before.items())
    assert len(before) == len(after) == 12


def test_a_loading_process_computes_on_one_thread(make, monkeypatch):
    data = make()
    load = data.load

    def counting(step, needs):
        labeled, *others = load(step, needs)
        threads = torch.full_like(labeled.label, torch.get_num_threads())
        return (type(labeled)(image=labeled.image, label=threads), *others)

    monkeypatch.setattr(data, "load", counting)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (loaded,) = data.batches(0, 1, workers=1)
    finally:
        torch.set_num_threads(before)
    assert (loaded[0].label == 1).all()
