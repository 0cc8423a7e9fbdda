import os
import shutil
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from zspl import models, plugins
from zspl.errors import SettingsError, UnknownPluginError, WeightsError
from zspl.models.heads import deeplabv3plus
from zspl.models.pretrained import load_backbone_file, read_state
from zspl.sections import plugin_settings

WEIGHTS = Path(os.environ.get("ZSPL_SHARED", "../shared")) / "weights"
MOBILENET = "mobilenetv2_100_imagenet.safetensors"

COMPACT = {"name": "compact", "widths": (4, 6, 8, 8)}
SMALL_HEAD = {"name": "deeplabv3plus", "width": 8, "low_width": 4}
SMALLEST = {"mit": {"size": "b0"}, "timm_features": {"model": "resnet18"}}


@pytest.fixture
def meta(monkeypatch):
    """Build networks without memory: shapes and counts are all there."""
    # Stochastic depth reads its rates from a tensor, which must hold numbers.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("name", plugins.names("zspl.models.backbones"))
@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_every_backbone_takes_images_of_any_size(meta, name, size):
    backbone = {"name": name, **SMALLEST.get(name, {})}
    model = models.build(backbone=backbone, head=SMALL_HEAD, num_classes=3).eval()
    with torch.no_grad():
        features = model.encode(torch.zeros(1, 3, *size))
        assert model.decode(features, size).shape == (1, 3, *size)
    assert len(features) >= 2
    # A plain transformer keeps one stride at all levels.
    grid = [round(side / 14) if name == "dinov2" else -(-side // 4) for side in size]
    assert list(features[0].shape[-2:]) == grid


@pytest.mark.parametrize("name", plugins.names("zspl.models.heads"))
def test_forward_is_encode_then_decode_at_the_images_size(name):
    width = {"width": 8}
    backbone = {"name": "dinov2"} if name == "dpt" else COMPACT
    model = models.build(backbone=backbone, head={"name": name, **width}, num_classes=3).eval()
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        expected = model.decode(model.encode(images), (32, 48))
        torch.testing.assert_close(model(images), expected)


def test_every_parameter_outside_the_head_is_named_backbone():
    model = models.build(backbone=COMPACT, head=SMALL_HEAD, num_classes=3)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"backbone", "head"}


def test_resnet101s_is_timms_network_with_a_dilated_last_stage():
    model = models.build(
        backbone={"name": "resnet50s"}, head=SMALL_HEAD, num_classes=2
    ).backbone.eval()
    plain = timm.create_model("resnet50s", pretrained=False, num_classes=0, output_stride=16)
    plain.load_state_dict(model.state_dict(), strict=False)
    images = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        low, high = model(images)
        assert torch.equal(high, plain.eval().forward_features(images))
    assert low.shape == (1, 256, 17, 17)
    assert high.shape == (1, 2048, 5, 5)
    assert model["layer4"][0].conv2.dilation == (1, 1)
    assert model["layer4"][1].conv2.dilation == (2, 2)


def test_deeplabv3plus_equals_the_decoder_written_out():
    torch.manual_seed(0)
    head = deeplabv3plus.build(deeplabv3plus.Settings(width=4, low_width=3, dilations=(1, 2)))(
        [5, 6], 3
    ).eval()
    low, high = torch.randn(2, 5, 9, 9), torch.randn(2, 6, 3, 3)
    branches = [branch(high) for branch in head.aspp.branches[:3]]
    pooled = head.aspp.branches[3].gap(high.mean((2, 3), keepdim=True))
    branches.append(F.interpolate(pooled, (3, 3), mode="bilinear", align_corners=True))
    up = F.interpolate(
        head.aspp.project(torch.cat(branches, 1)), (9, 9), mode="bilinear", align_corners=True
    )
    fused = head.fuse(torch.cat([head.reduce(low), up], 1))
    expected = F.interpolate(head.classifier(fused), (33, 33), mode="bilinear", align_corners=True)
    torch.testing.assert_close(head([low, high], (33, 33)), expected)


def test_one_image_in_a_training_batch_is_refused_in_one_line():
    model = models.build(backbone=COMPACT, head=SMALL_HEAD, num_classes=3)
    with pytest.raises(SettingsError, match=r"needs 2 or more images .* got 1"):
        model(torch.zeros(1, 3, 32, 32))


def test_an_unknown_backbone_or_setting_is_named():
    with pytest.raises(UnknownPluginError, match="Did you mean 'compact'"):
        models.build(backbone={"name": "compat"}, head=SMALL_HEAD, num_classes=3)
    with pytest.raises(SettingsError, match="colour"):
        models.build(backbone={**COMPACT, "colour": 1}, head=SMALL_HEAD, num_classes=3)


@pytest.mark.parametrize("name", plugins.names("zspl.models.backbones"))
def test_every_backbone_can_start_without_pretrained_weights(name):
    values = {**SMALLEST.get(name, {}), "pretrained": None}
    assert plugin_settings("zspl.models.backbones", name, values).pretrained is None


@pytest.mark.skipif(not (WEIGHTS / MOBILENET).exists(), reason=f"no {MOBILENET}; set ZSPL_SHARED")
def test_mobilenet_loads_imagenet_weights_from_a_checked_file(monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(WEIGHTS))
    backbone = {"name": "mobilenetv2_100", "pretrained": MOBILENET}
    state = load_file(WEIGHTS / MOBILENET)
    model = models.build(backbone=backbone, head=SMALL_HEAD, num_classes=7)
    for key, tensor in model.backbone.state_dict().items():
        if "num_batches_tracked" not in key:
            assert torch.equal(tensor, state[key].float()), key
    with pytest.raises(WeightsError):
        models.build(backbone={**backbone, "sha256": "0" * 64}, head=SMALL_HEAD, num_classes=7)


def test_a_missing_damaged_or_foreign_checkpoint_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))

    def build(name):
        backbone = {"name": "mobilenetv2_100", "pretrained": name}
        return models.build(backbone=backbone, head=SMALL_HEAD, num_classes=7)

    with pytest.raises(WeightsError, match="no such checkpoint"):
        build("absent.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=r"damaged.safetensors: not a readable checkpoint"):
        build("damaged.safetensors")
    save_file({"something": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="checkpoint of another network") as error:
        build("foreign.safetensors")
    assert "\n" not in str(error.value)
    shutil.rmtree(tmp_path)


def test_a_download_without_network_is_one_line(monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError("cannot reach the hub\nmore")

    monkeypatch.setattr(timm, "create_model", unreachable)
    backbone = {"name": "resnet50s", "pretrained": "gluon_in1k"}
    with pytest.raises(
        WeightsError, match=r"resnet50s.gluon_in1k.*cannot reach the hub\)"
    ) as error:
        models.build(backbone=backbone, head=SMALL_HEAD, num_classes=7)
    assert "\n" not in str(error.value)


def test_a_pytorch_checkpoint_is_read_without_running_code(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "good.pth")
    assert read_state(tmp_path / "good.pth")["a"].tolist() == [1, 1]
    torch.save({"a": Path("x")}, tmp_path / "code.pth")
    with pytest.raises(WeightsError, match="not a readable checkpoint"):
        read_state(tmp_path / "code.pth")


def test_scores_that_older_numpy_pickled_beside_a_network_are_read_over(tmp_path):
    content = {"model": {"module.a": torch.ones(2)}, "previous_best": np.float64(71.5)}
    torch.save(content, tmp_path / "new.pth")
    with (
        zipfile.ZipFile(tmp_path / "new.pth") as new,
        zipfile.ZipFile(tmp_path / "old.pth", "w") as old,
    ):
        for name in new.namelist():
            entry = new.read(name)
            renamed = entry.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            assert name.split("/")[1] != "data.pkl" or renamed != entry
            old.writestr(name, renamed)
    for name in ("new.pth", "old.pth"):
        assert read_state(tmp_path / name)["module.a"].tolist() == [1, 1]


def test_a_checkpoint_of_anything_but_tensors_by_name_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    module = torch.nn.Linear(2, 3)
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth: holds a list, expected tensors by name"):
        load_backbone_file(module, "list.pth", sha256=None)
    torch.save({**module.state_dict(), "bias": [0.0, 0.0, 0.0], "epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth: lacks 1 of 2 tensors .*first: bias"):
        load_backbone_file(module, "a.pth", sha256=None)
