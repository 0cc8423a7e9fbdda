"""SegFormer's head costs little and computes what its plain form does; DPT checks its levels."""

import runpy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from zspl import models
from zspl.errors import SettingsError
from zspl.models.heads import dpt, segformer

plain = runpy.run_path(str(Path(__file__).with_name("plain_networks.py")))
MIT = (64, 128, 320, 512)
AT_321 = (81, 41, 21, 11)
GIGA = 1e9


def build(width, channels=MIT, classes=21):
    torch.manual_seed(0)
    return segformer.build(segformer.Settings(width=width))(channels, classes)


def levels(sides, channels=MIT, batch=1):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, c, s, s, generator=generator)
        for c, s in zip(channels, sides, strict=True)
    ]


def plainly(head, features, size):
    """The published form: maps, upsampling, concatenation from coarse to fine, 1x1 fusion."""
    maps = [
        F.interpolate(linear(level), features[0].shape[-2:], mode="bilinear")
        for level, linear in zip(features, head.linears, strict=True)
    ]
    x = head.dropout(F.relu(head.bn(head.fuse(torch.cat(maps[::-1], 1)))))
    return F.interpolate(head.classifier(x), size, mode="bilinear")


@torch.no_grad()
def test_segformers_product_of_weights_gives_the_plain_forms_logits():
    head = build(256).eval()
    head.bn.running_mean.normal_()
    head.bn.running_var.uniform_(0.5, 2)
    features = levels(AT_321)
    expected = plainly(head, features, (321, 321))
    found = head(features, (321, 321))
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_segformers_product_of_weights_gives_the_plain_forms_gradients():
    head = build(6, (3, 4, 5, 6), 7).double().train()
    head.dropout.p = 0.0
    features = [level.double() for level in levels((9, 5, 3, 2), (3, 4, 5, 6), 2)]
    gradients = []
    for forward in (head, lambda *arguments: plainly(head, *arguments)):
        inputs = [level.clone().requires_grad_() for level in features]
        loss = (forward(inputs, (33, 33)) * torch.linspace(-1, 1, 33)).square().mean()
        gradients.append(torch.autograd.grad(loss, [*inputs, *head.parameters()]))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_segformers_head_costs_one_and_a_half_gigaflop_per_image_beside_one_product(count_costs):
    head, batch = build(768).eval(), 8
    with torch.no_grad(), torch.device("meta"), count_costs() as plain_costs:
        head.to("meta")
        features = [torch.empty(batch, c, s, s) for c, s in zip(MIT, AT_321, strict=True)]
        plainly(head, features, (321, 321))
    with torch.no_grad(), torch.device("meta"), count_costs() as costs:
        head(features, (321, 321))
    product = 2 * 768 * 768 * sum(MIT)
    assert plain_costs.flops == batch * 32_457_702_912
    assert costs.flops == batch * 1_499_020_800 + product
    assert costs.flops / batch < 1.7 * GIGA
    assert costs.ops <= 25


def test_segformers_state_has_the_keys_that_earlier_checkpoints_have():
    norms = {f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    maps = {f"linears.{k}.{name}" for k in range(4) for name in ("weight", "bias")}
    expected = {*maps, *norms, "bn.num_batches_tracked", "fuse.weight"}
    assert build(8).state_dict().keys() == expected | {"classifier.weight", "classifier.bias"}


@torch.no_grad()
def test_segformers_product_is_taken_in_full_precision_under_autocast():
    head = build(16).eval()
    features = levels((9, 5, 3, 2))
    expected = head(features, (33, 33))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights, _ = head._fused()
        found = head(features, (33, 33))
    assert weights[0].dtype == torch.float32
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.02)


@torch.no_grad()
def test_dpt_before_upsampling_gives_the_plain_forms_logits():
    p = plain["Plain"]()
    features = levels((5, 5, 5, 5), (8,) * 4, 2)
    expected = plain["dpt_decoder"](p, features, classes=3)
    head = dpt.build(dpt.Settings())((8,) * 4, 3)
    names = {"smooth": "output_conv.0", "classifier": "output_conv.2"}
    for ours, theirs in names.items():
        getattr(head, ours).weight.copy_(p.state[f"head.scratch.{theirs}.weight"])
        getattr(head, ours).bias.copy_(p.state[f"head.scratch.{theirs}.bias"])
    for k in range(4):
        head.projects[k].weight.copy_(p.state[f"head.projects.{k}.weight"])
        head.projects[k].bias.copy_(p.state[f"head.projects.{k}.bias"])
        head.reduces[k].weight.copy_(p.state[f"head.scratch.layer{k + 1}_rn.weight"])
        if k != 2:
            head.resizes[k].weight.copy_(p.state[f"head.resize_layers.{k}.weight"])
            head.resizes[k].bias.copy_(p.state[f"head.resize_layers.{k}.bias"])
        parts = {"sum": "resConfUnit2", "project": "out_conv"}
        parts |= {} if k == 3 else {"level": "resConfUnit1"}
        for ours, theirs in parts.items():
            prefix = f"head.scratch.refinenet{k + 1}.{theirs}."
            state = {
                key.removeprefix(prefix): t for key, t in p.state.items() if key.startswith(prefix)
            }
            getattr(head.fusions[k], ours).load_state_dict(state)
    found = head(features, (70, 70))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    other = F.interpolate(expected, (75, 61), mode="bilinear", align_corners=True)
    assert (head(features, (75, 61)) - other).abs().max() <= 1e-5 * expected.abs().max()


def test_dpt_refuses_other_backbones_in_one_line():
    compact = {"name": "compact", "widths": (4, 6, 8, 8)}
    with pytest.raises(SettingsError, match="reads 4 levels, the backbone returns 2"):
        models.build(backbone=compact, head={"name": "dpt"}, num_classes=3)
    mit = {"name": "mit", "size": "b0"}
    model = models.build(backbone=mit, head={"name": "dpt"}, num_classes=3)
    with pytest.raises(SettingsError, match=r"needs levels of one size.*\(16, 16\), \(8, 8\)"):
        model(torch.zeros(2, 3, 64, 64))
