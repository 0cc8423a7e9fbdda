"""Learning rates and lengths of UniMatch's trainings, split by split (methods.md 2.1)."""

import math

import pytest
import torch

from zspl.data.order import IdStream, Share
from zspl.datasets import coco, pascal_voc
from zspl.io.splits import read_ids
from zspl.settings import Train
from zspl.training.schedule import build_optimiser, poly_factor, set_learning_rate

COCO_TRAIN = 118_287
BATCH = 8

PUBLISHED = {
    "labeled_92": (92, 10_490, 1311, 104_880),
    "labeled_183": (183, 10_399, 1300, 104_000),
    "labeled_366": (366, 10_216, 1277, 102_160),
    "labeled_732": (732, 9_850, 1231, 98_480),
    "labeled_1464": (1464, 9_118, 1140, 91_200),
    "labeled_232": (232, 118_055, 14_757, 442_710),
    "labeled_463": (463, 117_824, 14_728, 441_840),
    "labeled_925": (925, 117_362, 14_670, 440_100),
    "labeled_1849": (1849, 116_438, 14_555, 436_650),
    "labeled_3697": (3697, 114_590, 14_324, 429_720),
}
"""Split -> labeled images, unlabeled ones, iterations of an epoch on four GPUs, and of all."""

OURS = {name: epoch for name, (_, _, epoch, _) in PUBLISHED.items()} | {
    "labeled_183": 1299,
    "labeled_1464": 1139,
    "labeled_232": 14_756,
    "labeled_1849": 14_554,
    "labeled_3697": 14_323,
}


def is_coco(name):
    return name in coco.OFFICIAL


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shipped_lists_leave_the_published_number_of_unlabeled_images(name):
    number = name.removeprefix("labeled_")
    labeled, unlabeled, _, _ = PUBLISHED[name]
    if is_coco(name):
        everything = COCO_TRAIN
        found = read_ids(coco._LISTS / f"{number}.txt")
    else:
        folder = pascal_voc._LISTS
        everything = len(read_ids(folder / "train_aug.txt"))
        found = read_ids(folder / f"{number}.txt")
    assert (len(found), everything - len(found)) == (labeled, unlabeled)


def on_gpus(images, gpus):
    """Iterations of an epoch in the official code: the sampler pads, the loader drops the rest."""
    per_gpu = math.ceil(images / gpus)
    return per_gpu // (BATCH // gpus)


def ours(images):
    return len(IdStream([str(k) for k in range(images)], BATCH, seed=0, purpose="x"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_epoch_is_that_of_the_official_code_on_one_gpu_for_any_number_of_processes(name):
    _, unlabeled, published, total = PUBLISHED[name]
    epochs = 30 if is_coco(name) else 80
    assert on_gpus(unlabeled, 4) == published
    assert published * epochs == total
    assert ours(unlabeled) == on_gpus(unlabeled, 1) == OURS[name]
    # On 2 and 4 GPUs the official code repeats up to 3 images, which can fill one more batch.
    for gpus in (2, 4):
        assert on_gpus(unlabeled, gpus) - ours(unlabeled) in (0, 1)
    stream = IdStream([str(k) for k in range(unlabeled)], BATCH, seed=0, purpose="x")
    shares = [Share(process=k, processes=4).of(stream.at(3)) for k in range(4)]
    assert sorted(pair for share in shares for pair in share) == list(enumerate(stream.at(3)))


@pytest.mark.parametrize(
    ("images", "gpus", "expected"), [(92, 4, 11), (183, 4, 23), (1464, 1, 183)]
)
def test_the_supervised_baseline_passes_over_the_labeled_list_alone(images, gpus, expected):
    assert on_gpus(images, gpus) == expected
    assert ours(images) == expected - (images == 183)


def recipe(name):
    """The part of `train` that the learning rate reads."""
    return Train.model_construct(
        optimizer="sgd",
        learning_rate=0.004 if is_coco(name) else 0.001,
        head_multiplier=10.0,
        momentum=0.9,
        weight_decay=1e-4,
        poly_power=0.9,
    )


def official_rates(start, total, wanted):
    """Rates of chosen iterations in a loop that sets the next rate after each step."""
    rate, found = start, {}
    for t in range(total):
        if t in wanted:
            found[t] = rate
        rate = start * (1 - t / total) ** 0.9
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_learning_rates_are_the_published_ones_at_the_first_the_second_and_the_last_step(name):
    chosen, total = recipe(name), PUBLISHED[name][3]
    modules = {"backbone": torch.nn.Linear(1, 1), "head": torch.nn.Linear(1, 1)}
    optimiser = build_optimiser(torch.nn.ModuleDict(modules), chosen)
    steps = (0, 1, 2, total // 2, total - 1)
    expected = official_rates(chosen.learning_rate, total, steps)
    for t in steps:
        factor = poly_factor(t, total=total, power=chosen.poly_power)
        set_learning_rate(optimiser, chosen, factor=factor)
        backbone, head = (group["lr"] for group in optimiser.param_groups)
        assert backbone == pytest.approx(expected[t], rel=1e-12)
        assert head == pytest.approx(10 * expected[t], rel=1e-12)
    assert expected[0] == expected[1] == chosen.learning_rate > expected[2]
    assert expected[total - 1] == pytest.approx(chosen.learning_rate * (2 / total) ** 0.9)
