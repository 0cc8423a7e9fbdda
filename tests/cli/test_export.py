"""`zspl export`: ONNX that gives torch's logits, or no file at all."""

import json

import jaxtyping
import numpy as np
import pytest
import torch

from zspl import cli, models
from zspl.io.model_card import ModelCard
from zspl.training.checkpoints import save_weights

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Tracing passes sizes as tensors, which the tests' own type checks refuse."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


CLASSES = ("background", "cat", "dog")
DEEPLAB = {"name": "deeplabv3plus", "width": 32, "low_width": 16, "dilations": [2, 4]}
NETWORKS = {
    "compact": ({"name": "compact"}, DEEPLAB),
    "resnet50s": ({"name": "resnet50s"}, DEEPLAB),
    "mit_b0": ({"name": "mit", "size": "b0"}, {"name": "segformer", "width": 32}),
}


def trained(folder, backbone, head):
    """Write a cell with random weights and random statistics of batch norm."""
    torch.manual_seed(0)
    network = models.build(backbone=backbone, head=head, num_classes=3, pretrained=None)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    folder.mkdir()
    save_weights(folder / "last.safetensors", network.state_dict())
    card = ModelCard(
        backbone=backbone,
        head=head,
        method={"name": "supervised"},
        crop_size=64,
        window=None,
        classes=CLASSES,
        background=True,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        trained={"method": "supervised", "seed": 0},
    )
    card.write(folder / "model.json")
    return network.eval()


def export(folder, out, *more):
    return cli.main(["export", "--checkpoint", str(folder), "--out", str(out), *more])


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_gives_the_logits_of_torch_at_sizes_that_were_not_exported(
    name, tmp_path, capsys
):
    network = trained(tmp_path / "cell", *NETWORKS[name])
    assert export(tmp_path / "cell", tmp_path / "model.onnx") == 0
    assert "100.000% of the pixels have the same class" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch, height, width in ((1, 75, 133), (2, 160, 64)):
        image = torch.randn(batch, 3, height, width)
        with torch.inference_mode():
            expected = network(image).numpy()
        found = session.run(["logits"], {"image": image.numpy()})[0]
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_the_file_tells_classes_and_preprocessing(tmp_path):
    trained(tmp_path / "cell", *NETWORKS["compact"])
    assert export(tmp_path / "cell", tmp_path / "model.onnx") == 0
    facts = {p.key: p.value for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(facts["zspl.classes"]) == list(CLASSES)
    assert json.loads(facts["zspl.mean"]) == [0.485, 0.456, 0.406]
    assert json.loads(facts["zspl.std"]) == [0.229, 0.224, 0.225]
    assert json.loads(facts["zspl.trained"])["method"] == "supervised"
    assert facts["zspl.size"] == "any"


def test_dinov2_is_refused_for_any_size_and_right_at_one(tmp_path, capsys):
    dinov2 = ({"name": "dinov2"}, {"name": "dpt", "width": 16, "level_widths": [8, 8, 8, 8]})
    trained(tmp_path / "cell", *dinov2)
    assert export(tmp_path / "cell", tmp_path / "model.onnx") == 2
    assert "not written, onnxruntime does not give torch's logits" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()
    assert export(tmp_path / "cell", tmp_path / "model.onnx", "--size", "70x98") == 0
    assert " 70 x 98" in capsys.readouterr().out


def test_another_ending_is_refused_before_anything_is_loaded(tmp_path, capsys):
    assert export(tmp_path / "none", tmp_path / "model.pt") == 2
    assert "must end in .onnx" in capsys.readouterr().err
