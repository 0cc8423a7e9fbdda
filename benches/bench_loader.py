"""What one training step loads, against the textbook loader of UniMatch. `make bench`.

Real photos at crop 321, 8 labeled and 8 unlabeled images. Both sides decode every photo, as in the
first epoch and where the photos do not fit in memory; a second row is of later epochs. Ours is
`views: tensor` with `cutmix_partner: batch`: the views that a GPU makes are no part of it, and have
a row of their own, on the CPU, where they cost twice what Pillow does.
"""

import os
import statistics
import time
from dataclasses import fields
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from textbook_loader import step

from zspl.data.loading import TrainingData
from zspl.data.views import finished
from zspl.io.classes import ClassTable
from zspl.records import ImageRecord, Split
from zspl.settings import Train

PHOTOS = Path(os.environ.get("ZSPL_SHARED", "../shared")) / "data" / "voc_animals"
SIDE, BATCH, LABELED, UNLABELED = 321, 8, 24, 120
MUST = 4
NEEDS = frozenset({"labeled", "unlabeled"})
NAMES = tuple(f"class {k}" for k in range(21))
TABLE = ClassTable.plain(NAMES, prompts=NAMES[1:])
PAIRS = 7


@pytest.fixture(scope="module")
def records():
    if not PHOTOS.is_dir():
        pytest.skip(f"{PHOTOS}: no such folder; set ZSPL_SHARED to where the photos are")
    found = [
        ImageRecord(
            image_id=mask.stem,
            image_path=PHOTOS / "JPEGImages" / f"{mask.stem}.jpg",
            label_path=mask,
            digest="",
        )
        for mask in sorted((PHOTOS / "SegmentationClass").glob("*.png"))[: LABELED + UNLABELED]
    ]
    return {record.image_id: record for record in found}


def build(records, *, views, partner, cached):
    ids = tuple(records)
    split = Split(name="bench", labeled=ids[:LABELED], holdout=(), unlabeled=ids[LABELED:], val=())
    recipe = Train.model_construct(
        crop_size=SIDE,
        scale_range=(0.5, 2.0),
        batch_labeled=BATCH,
        batch_unlabeled=BATCH,
        cutmix_partner=partner,
        views=views,
        accumulate=1,
    )
    data = TrainingData(records, split, TABLE, recipe, seed=0)
    if not cached:
        data._stock._room = 0  # noqa: SLF001 - what a data set larger than the memory does
    return data


def textbook(records, data):
    """Return a function that loads the next step's images, the same ones as `data`, by the book."""
    numbers = count()

    def load():
        k = next(numbers)
        labeled, unlabeled = (
            [(records[i].image_path, records[i].label_path) for i in ids]
            for ids in data.ids(k, NEEDS)
        )
        return step(labeled, unlabeled, side=SIDE, seed=k)

    return load


def loader(data):
    numbers = count()
    return lambda: data.load(next(numbers), NEEDS)


def num_bytes(batches):
    tensors = (
        part if isinstance(part, list) else [getattr(part, f.name) for f in fields(part)]
        for part in batches
        if part is not None
    )
    return sum(tensor.nbytes for some in tensors for tensor in some if tensor is not None)


def megabytes(expected, found):
    """Tell what leaves the loader, in place of a parity: the draws differ, as do the images."""
    theirs, ours = num_bytes(expected), num_bytes(found)
    return f"{theirs / 1e6:.1f} -> {ours / 1e6:.1f} MB per step ({theirs / ours:.0f}x less)"


@pytest.mark.parametrize("cached", [False, True], ids=["decoding", "photos in memory"])
def bench_loading_of_a_step(compare, records, cached):
    data = build(records, views="tensor", partner="batch", cached=cached)
    if cached:
        for image_id in records:
            data._stock.image(image_id)  # noqa: SLF001
    name = "photos in memory" if cached else "every photo decoded"
    ours = loader(data)
    compare(
        f"loading of a step, {name}",
        textbook(records, data),
        ours,
        parity=megabytes,
        bound=MUST,
        pairs=PAIRS,
    )
    print(f"    {steps_per_core(ours):.1f} steps/s per core")


@pytest.mark.parametrize("partner", ["same_image", "batch"])
def bench_loading_of_a_step_with_pillow(compare, records, partner):
    """The default mode, bit for bit the published one: no bound, it is the reference's work."""
    data = build(records, views="pillow", partner=partner, cached=False)
    compare(
        f"loading of a step, views: pillow, cutmix_partner: {partner}",
        textbook(records, data),
        loader(data),
        parity=megabytes,
    )


def bench_a_step_with_its_views_on_this_cpu(compare, records):
    """What `views: tensor` costs where no GPU makes the views: against `pillow`, all in all."""
    pillow, tensor = (
        build(records, views=views, partner="batch", cached=False) for views in ("pillow", "tensor")
    )
    load = loader(tensor)
    compare(
        "step with its views on this CPU, pillow against tensor",
        loader(pillow),
        lambda: finished(load()),
        parity=_grey_levels,
    )
    loaded = tensor.load(0, NEEDS)
    print(f"    of which the views: {1000 / steps_per_core(partial(finished, loaded)):.0f} ms")


def _grey_levels(expected, found):
    """Both made the same draws, so their views can be compared pixel by pixel."""
    std = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    names = ("weak", "strong1", "strong2")
    apart = torch.stack(
        [(getattr(expected[1], n) - getattr(found[1], n)).abs() * std * 255 for n in names]
    )
    return f"{apart.mean():.3f} grey levels apart, at most {apart.max():.0f}"


def steps_per_core(call):
    call()
    seconds = []
    for _ in range(8):
        begin = time.process_time()
        call()
        seconds.append(time.process_time() - begin)
    return 1 / statistics.mean(seconds)
