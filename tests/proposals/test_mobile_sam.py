"""MobileSAM: the official checkpoint's names, its size, and its arithmetic written out plainly."""

import itertools
import re
from functools import cache

import pytest
import torch
from torch.nn import functional as F

from zspl.errors import WeightsError
from zspl.proposals import _sam_weights, sam
from zspl.proposals._sam_weights import CheckpointSettings
from zspl.proposals._tiny_vit import TinyViT

pytest.importorskip("segment_anything")

ENCODER_PARAMETERS = 6_065_532
ALL_PARAMETERS = 10_130_092
WIDTHS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)


def conv_norm(name, wide, out, size):
    """Yield the names and shapes of a convolution and its batch norm."""
    yield f"{name}.c.weight", (out, wide, size, size)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.bn.{part}", (out,)
    yield f"{name}.bn.num_batches_tracked", ()


def affine(name, *shape):
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def block(name, width, heads, window):
    yield f"{name}.attn.attention_biases", (heads, window * window)
    yield from affine(f"{name}.attn.norm", width)
    yield from affine(f"{name}.attn.qkv", 3 * width, width)
    yield from affine(f"{name}.attn.proj", width, width)
    yield from affine(f"{name}.mlp.norm", width)
    yield from affine(f"{name}.mlp.fc1", 4 * width, width)
    yield from affine(f"{name}.mlp.fc2", width, 4 * width)
    yield from conv_norm(f"{name}.local_conv", 1, width, 3)


def official_encoder():
    """Yield the names and shapes in the encoder of the published file mobile_sam.pt."""
    yield from conv_norm("patch_embed.seq.0", 3, 32, 3)
    yield from conv_norm("patch_embed.seq.2", 32, 64, 3)
    for k in range(2):
        yield from conv_norm(f"layers.0.blocks.{k}.conv1", 64, 256, 1)
        yield from conv_norm(f"layers.0.blocks.{k}.conv2", 1, 256, 3)
        yield from conv_norm(f"layers.0.blocks.{k}.conv3", 256, 64, 1)
    for stage in (1, 2, 3):
        for k in range(DEPTHS[stage]):
            parts = (WIDTHS[stage], HEADS[stage], WINDOWS[stage])
            yield from block(f"layers.{stage}.blocks.{k}", *parts)
    for stage in (0, 1, 2):
        narrow, wide = WIDTHS[stage : stage + 2]
        yield from conv_norm(f"layers.{stage}.downsample.conv1", narrow, wide, 1)
        yield from conv_norm(f"layers.{stage}.downsample.conv2", 1, wide, 3)
        yield from conv_norm(f"layers.{stage}.downsample.conv3", wide, wide, 1)
    yield from affine("norm_head", 320)
    yield from affine("head", 1000, 320)
    yield "neck.0.weight", (256, 320, 1, 1)
    yield from affine("neck.1", 256)
    yield "neck.2.weight", (256, 256, 3, 3)
    yield from affine("neck.3", 256)


def official_state(seed=0):
    """Random values under exactly the official names; the decoder's are those of every SAM."""
    from segment_anything import sam_model_registry

    torch.manual_seed(seed)
    with torch.device("meta"):
        names = sam_model_registry["vit_b"]().state_dict()
    shapes = {name: value.shape for name, value in names.items()}
    decoder = {name: shape for name, shape in shapes.items() if "image_encoder." not in name}
    encoder = {f"image_encoder.{name}": shape for name, shape in official_encoder()}
    return {name: random_for(name, shape) for name, shape in {**encoder, **decoder}.items()}


def random_for(name, shape):
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith("running_var"):
        return torch.rand(shape) + 0.5
    fan = max(1, torch.Size(shape[1:]).numel())
    return torch.randn(shape) * (1.5 / fan**0.5 if len(shape) > 1 else 0.3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a folder with such a checkpoint, as .pt and as .safetensors."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("weights")
    torch.save(official_state(), folder / "mobile.pt")
    save_file(official_state(), folder / "mobile.safetensors")
    return folder


def test_mobile_sam_has_the_published_number_of_parameters():
    made = _sam_weights.build("vit_t")
    count = {"sum": 0, "encoder": 0}
    for name, parameter in made.named_parameters():
        count["sum"] += parameter.numel()
        count["encoder"] += parameter.numel() * name.startswith("image_encoder.")
    buffers = sum(value.numel() for name, value in made.named_buffers() if "gaussian" in name)
    assert count["encoder"] == ENCODER_PARAMETERS
    assert count["sum"] == ALL_PARAMETERS
    assert buffers == 256


@pytest.mark.parametrize("file", ["mobile.pt", "mobile.safetensors"])
def test_a_checkpoint_with_the_official_names_loads_strictly(saved, file, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(saved))
    loaded = _sam_weights.load(CheckpointSettings(model="vit_t", checkpoint=file))
    expected = official_state()
    found = loaded.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.image_encoder.img_size == 1024
    assert loaded.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])


def test_another_sam_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    state = official_state()
    del state["image_encoder.neck.2.weight"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(WeightsError, match=r"cut\.pt: does not fit SAM vit_t .*neck\.2\.weight"):
        _sam_weights.load(CheckpointSettings(model="vit_t", checkpoint="cut.pt"))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, monkeypatch):
    class Harmful:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    torch.save({"image_encoder.neck.0.weight": Harmful()}, tmp_path / "harmful.pt")
    with pytest.raises(WeightsError, match=r"harmful\.pt: is no readable checkpoint"):
        _sam_weights.load(CheckpointSettings(model="vit_t", checkpoint="harmful.pt"))
    assert not (tmp_path / "ran").exists()


class Plain:
    """The encoder written out from its formulas, one window and one head at a time."""

    def __init__(self, state):
        self.state = state

    def __call__(self, x):
        x = F.gelu(self.conv_norm("patch_embed.seq.0", x, stride=2))
        x = self.conv_norm("patch_embed.seq.2", x, stride=2)
        for stage, depth in enumerate(DEPTHS):
            for k in range(depth):
                name = f"layers.{stage}.blocks.{k}"
                x = self.block(name, x, stage) if stage else self.inverted(name, x)
            if stage < 3:
                x = self.merged(f"layers.{stage}.downsample", x, stride=1 if stage == 2 else 2)
        x = self.normed("neck.1", F.conv2d(x, self.state["neck.0.weight"]))
        return self.normed("neck.3", F.conv2d(x, self.state["neck.2.weight"], padding=1))

    def conv_norm(self, name, x, stride=1):
        weight = self.state[f"{name}.c.weight"]
        groups, pad = x.shape[1] // weight.shape[1], weight.shape[2] // 2
        x = F.conv2d(x, weight, stride=stride, padding=pad, groups=groups)
        mean, var, scale, shift = (
            self.state[f"{name}.bn.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def inverted(self, name, x):
        inner = F.gelu(self.conv_norm(f"{name}.conv1", x))
        inner = F.gelu(self.conv_norm(f"{name}.conv2", inner))
        return F.gelu(x + self.conv_norm(f"{name}.conv3", inner))

    def merged(self, name, x, stride):
        x = F.gelu(self.conv_norm(f"{name}.conv1", x))
        x = F.gelu(self.conv_norm(f"{name}.conv2", x, stride))
        return self.conv_norm(f"{name}.conv3", x)

    def normed(self, name, x):
        mean = x.mean(1, keepdim=True)
        spread = ((x - mean) ** 2).mean(1, keepdim=True)
        scale, shift = (self.state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
        return (x - mean) / (spread + 1e-6).sqrt() * scale + shift

    def block(self, name, x, stage):
        x = x + self.attended(f"{name}.attn", x, HEADS[stage], WINDOWS[stage])
        x = self.conv_norm(f"{name}.local_conv", x)
        cells = self.line(f"{name}.mlp.norm", x.permute(0, 2, 3, 1))
        cells = F.gelu(self.full(f"{name}.mlp.fc1", cells))
        return x + self.full(f"{name}.mlp.fc2", cells).permute(0, 3, 1, 2)

    def line(self, name, x):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        normed = (x - mean) / (var + 1e-5).sqrt()
        return normed * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def full(self, name, x):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def attended(self, name, x, heads, window):
        batch, _, height, width = x.shape
        out = torch.zeros_like(x)
        for b, top, left in itertools.product(
            range(batch), range(0, height, window), range(0, width, window)
        ):
            part = x[b, :, top : top + window, left : left + window]
            seen = torch.zeros(x.shape[1], window, window)
            seen[:, : part.shape[1], : part.shape[2]] = part
            done = self.one_window(name, seen.flatten(1).T, heads, window).T.view_as(seen)
            out[b, :, top : top + window, left : left + window] = done[
                :, : part.shape[1], : part.shape[2]
            ]
        return out

    @staticmethod
    @cache
    def apart(window):
        """Number the pairs of cells by how far apart they are, down and across."""
        places = list(itertools.product(range(window), range(window)))
        pairs = [[abs(a - c) * window + abs(b - d) for c, d in places] for a, b in places]
        return torch.tensor(pairs)

    def one_window(self, name, cells, heads, window):
        biases = self.state[f"{name}.attention_biases"]
        apart = self.apart(window)
        joint = self.full(f"{name}.qkv", self.line(f"{name}.norm", cells))
        mixed = []
        for h, of_head in enumerate(joint.chunk(heads, dim=1)):
            q, k, v = of_head.chunk(3, dim=1)
            logits = q @ k.T / q.shape[1] ** 0.5 + biases[h][apart]
            mixed.append(torch.softmax(logits, dim=1) @ v)
        return self.full(f"{name}.proj", torch.cat(mixed, dim=1))


@pytest.mark.parametrize("side", [64, 176])
def test_the_encoder_agrees_with_its_formulas_written_out(side):
    torch.manual_seed(1)
    state = {name: random_for(name, shape) for name, shape in official_encoder()}
    encoder = TinyViT(side).eval()
    encoder.load_state_dict(state)
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        found = encoder(images)
        expected = Plain(state)(images)
    assert found.shape == (2, 256, side // 16, side // 16)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_every_attention_bias_counts(saved):
    torch.manual_seed(2)
    encoder = TinyViT(64).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = encoder(images)
        for name, parameter in encoder.named_parameters():
            if name.endswith("attention_biases"):
                parameter[:, 1:] += 3
        assert not torch.allclose(before, encoder(images), atol=1e-3)


def test_mobile_sam_draws_segments_through_the_proposer(saved, monkeypatch):
    import numpy as np
    from PIL import Image

    monkeypatch.setenv("ZSPL_WEIGHTS", str(saved))
    blocks = np.random.default_rng(0).integers(0, 255, (4, 6, 3))
    photo = Image.fromarray(np.kron(blocks, np.ones((10, 10, 1))).astype(np.uint8))
    settings = sam.Settings(
        model="vit_t", checkpoint="mobile.pt", points_per_side=1,
        pred_iou_thresh=-99.0, stability_score_thresh=0.0, box_nms_thresh=1.0,
    )  # fmt: skip
    found = sam.build(settings).propose(photo)
    assert found.masks.shape[1:] == (40, 60)


def test_vit_t_means_the_mobile_sam_of_the_catalog(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    (tmp_path / "mobile_sam.pt").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=re.escape("expected 6dbb90523a35330f")):
        sam.build(sam.Settings(model="vit_t"))
