"""Twenty steps of every method with fixed numbers: what changes one of them changes results."""

import pytest
import torch

from zspl import models, plugins
from zspl.data.label_quality import LabelQuality
from zspl.io.classes import ClassTable
from zspl.methods import Facts
from zspl.observer import Silent
from zspl.records import LabeledBatch, UnlabeledBatch
from zspl.settings import Train
from zspl.training.loop import Training, train
from zspl.training.selection import Selection

STEPS = 20
REPORTED = (1, 5, 10, 15, 20)

SETTINGS = {
    "unimatch": {"min_confidence": 0.3},
    "fixmatch": {"min_confidence": 0.3},
    "allspark": {"memory_from": 2},
    "beyond_pixels": {"min_confidence": 0.3, "patch_widths": (8, 6, 4), "noise_rate": 0.05},
    "logicdiag": {"hierarchy": {"pair": ["b", "c"]}},
    "recommended": {"evidence": 0.5, "min_confidence": 0.6},
}
"""Where the published values would let nothing happen within 20 steps of 4 epochs."""

GOLDEN = {
    "allspark": (1.4188921, 1.2245536, 1.0011312, 0.8766021, 0.8724496),
    "beyond_pixels": (1.1214050, 1.0714228, 1.0887651, 1.0517316, 1.0301534),
    "cps": (5.9819455, 5.4867258, 5.4126468, 5.2947998, 5.1602211),
    "enhanced": (1.4323454, 1.3970898, 1.4056790, 1.3707623, 1.3743207),
    "fixmatch": (1.2399337, 1.2091320, 1.2382077, 1.1584711, 1.0561240),
    "logicdiag": (4.5921545, 4.2052827, 3.7854304, 3.6380315, 3.6876068),
    "paper": (1.4323454, 1.3970898, 1.4056790, 1.3707623, 1.3743207),
    "paper_unsmoothed": (1.4314942, 1.3902838, 1.4032922, 1.3611214, 1.3698542),
    "recommended": (0.8541887, 0.8042207, 0.7825258, 0.7589341, 0.7623475),
    "stpp": (1.4592152, 1.3950353, 1.3932663, 1.3377992, 1.3181491),
    "supervised": (1.4812217, 1.3861394, 1.3837125, 1.3631439, 1.3478290),
    "unimatch": (1.0158807, 0.9573369, 1.2460759, 1.1656809, 1.1235396),
}
"""Losses of the reported steps, one thread on a CPU."""

GATES = {
    "confidence": (
        {"min_zero_shot_confidence": 0.4},
        (1.4304703, 1.3977602, 1.4081308, 1.3732574, 1.3735881),
    ),
    "precision": ({"min_precision": 0.75}, (1.5119550, 1.4001327, 1.2696748, 1.2666023, 1.2702876)),
    "agreement": ({"agreement": 2}, (1.3818758, 1.3602905, 1.3860822, 1.3556883, 1.3414772)),
    "annealed": (
        {"final_zero_shot_weight": 0.0, "counted": "all"},
        (1.4323454, 1.2568398, 1.0923324, 0.8890507, 0.7208028),
    ),
    "evidence": (
        {"evidence": 1.0, "min_zero_shot_confidence": 0.4},
        (1.4291043, 1.3946651, 1.4041588, 1.3707135, 1.3765757),
    ),
    "lean": ({"streams": "lean"}, (1.4405160, 1.4067153, 1.4002376, 1.3608751, 1.3606546)),
    "teacher": (
        {"min_confidence": 0.3, "teacher_ratio": 0.9},
        (1.4018999, 1.3244762, 1.2622800, 1.1835732, 1.1890800),
    ),
}
"""Settings of `enhanced` beyond the paper's rule, with the same losses."""


WITHIN = {
    "beyond_pixels": (1.1214050, 1.0714228, 1.0919838, 1.0496453, 1.0091772),
    "cps": (6.0250645, 5.5013132, 5.1810489, 4.5920682, 4.1614971),
    "fixmatch": (1.1737423, 1.1023332, 1.2191265, 1.1548315, 1.1353309),
    "logicdiag": (4.5907717, 4.1697736, 3.8591204, 3.6214154, 3.6824982),
    "paper": (1.4364977, 1.3930354, 1.4040782, 1.3708028, 1.3666552),
    "unimatch": (0.9562134, 0.9032811, 1.1717949, 1.0256412, 1.0676342),
}
"""The same losses where CutMix pastes within the batch."""


class Losses(Silent):
    """Remembers the loss of each reported step."""

    def __init__(self):
        self.found = {}

    def metrics(self, values, *, step=None):
        if "loss" in values:
            self.found[step] = values["loss"]


def recipe():
    return Train.model_validate(
        {
            "crop_size": 24,
            "scale_range": (0.5, 2.0),
            "batch_labeled": 2,
            "batch_unlabeled": 2,
            "cutmix_partner": "same_image",
            "views": "pillow",
            "accumulate": 1,
            "precision": "float32",
            "epochs": None,
            "iterations": STEPS,
            "optimizer": "sgd",
            "learning_rate": 0.02,
            "head_multiplier": 2.0,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "poly_power": 0.9,
            "evaluate_every": STEPS,
            "checkpoint_every": STEPS,
            "selection": "last",
            "methods": {},
            "models": {},
        }
    )


def network():
    return models.build(
        backbone={"name": "compact", "widths": (4, 6, 8, 8)},
        head={"name": "deeplabv3plus", "width": 8, "low_width": 4, "dilations": (2,)},
        num_classes=4,
    )


def batch(step, needs, *, confidence=False, within=False):
    """Draw blocks of colour whose class is their brightness, so that there is much to learn."""
    draw, sure = (torch.Generator().manual_seed(seed) for seed in (step, 1000 + step))

    def crops():
        label = torch.randint(0, 4, (2, 6, 6), generator=draw).repeat_interleave(4, 1)
        label = label.repeat_interleave(4, 2)
        noise = torch.randn(2, 3, 24, 24, generator=draw)
        return label, label[:, None].float() - 1.5 + 0.5 * noise

    def unlabeled():
        label, weak = crops()
        padding = torch.zeros(2, 24, 24, dtype=torch.bool)
        padding[0, :, 20:] = True
        return UnlabeledBatch(
            weak=weak,
            strong1=weak * 0.8 + 0.1,
            strong2=weak * 1.3 - 0.2,
            padding=padding,
            box1=torch.rand(2, 24, 24, generator=draw) > 0.7,
            box2=torch.rand(2, 24, 24, generator=draw) > 0.7,
            zero_shot=label.masked_fill(padding, 255),
            zero_shot_confidence=torch.rand(2, 24, 24, generator=sure) if confidence else None,
        )

    label, image = crops()
    label[1, :2] = 255
    labeled = LabeledBatch(image=image, label=label)
    if "unlabeled" not in needs:
        return labeled, None, None
    return labeled, unlabeled(), None if within else unlabeled()


def quality():
    """Count more right pixels the higher the confidence, from class to class later."""
    level = torch.arange(256).expand(4, 256)
    right = level - 50 * torch.arange(4)[:, None]
    return LabelQuality(
        right=right.clamp(min=0),
        wrong=64 - 0 * level,
        claims=20 * torch.eye(4, 5).long() + 2,
        images=torch.tensor([2, 3, 1, 0]),
    )


def losses_of(name, folder, settings=None, *, within=False):
    module = plugins.load("zspl.methods", name)
    method = module.build(module.Settings(**(settings or SETTINGS.get(name, {}))))
    table = ClassTable.plain(tuple("abcd"), prompts=tuple("bcd"))
    facts = Facts(class_names=table.names, crop_size=24, label_quality=quality())
    torch.manual_seed(0)
    model = method.prepare(
        method.adapt(network(), facts), lambda: method.adapt(network(), facts), facts
    )
    losses = Losses()
    training = Training(
        name=name,
        recipe=recipe(),
        iterations=STEPS,
        per_epoch=5,
        seed=0,
        method=method,
        batches=lambda start, stop: (
            batch(step, module.NEEDS, confidence=settings is not None, within=within)
            for step in range(start, stop)
        ),
        selection=Selection(name="last", records=(), table=table),
        folder=folder,
    )
    train(training, model, losses)
    return tuple(losses.found[step] for step in REPORTED)


def test_every_method_has_a_golden_run():
    assert sorted(GOLDEN) == list(plugins.names("zspl.methods"))


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_twenty_steps_give_the_known_losses(name, tmp_path):
    assert losses_of(name, tmp_path) == pytest.approx(GOLDEN[name], rel=1e-5)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", WITHIN)
def test_twenty_steps_that_paste_within_the_batch_give_the_known_losses(name, tmp_path):
    assert losses_of(name, tmp_path, within=True) == pytest.approx(WITHIN[name], rel=1e-5)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("gate", GATES)
def test_twenty_steps_with_each_gate_give_the_known_losses(gate, tmp_path):
    settings, known = GATES[gate]
    assert losses_of("enhanced", tmp_path, settings) == pytest.approx(known, rel=1e-5)
