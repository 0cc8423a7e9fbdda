"""Published networks written out plainly, reading each tensor under its published name.

`Plain.state` is empty at first: a tensor that is read and not there yet is made up at random with
the shape the network needs. So one pass gives both a checkpoint with exactly the published names
and shapes, and what that network makes of an image.
"""

import math

import torch
from torch.nn import functional as F


class Plain:
    """The tensors of a network by name, and the layers that read them."""

    def __init__(self, seed=0):
        self.state = {}
        self.generator = torch.Generator().manual_seed(seed)

    def tensor(self, name, *shape, about=0.0, spread=0.1):
        if name not in self.state:
            noise = torch.randn(shape, generator=self.generator)
            self.state[name] = about + spread * noise
        return self.state[name]

    def weight(self, name, *shape):
        return self.tensor(name, *shape, spread=math.sqrt(1 / math.prod(shape[1:])))

    def conv(self, name, x, out, kernel, *, bias=False, groups=1, **options):
        options = {"padding": kernel // 2, **options}
        weight = self.weight(f"{name}.weight", out, x.shape[1] // groups, kernel, kernel)
        return F.conv2d(
            x, weight, self.tensor(f"{name}.bias", out) if bias else None, groups=groups, **options
        )

    def norm(self, name, x):
        channels = x.shape[1]
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)
        return F.batch_norm(
            x,
            self.tensor(f"{name}.running_mean", channels),
            self.tensor(f"{name}.running_var", channels, about=1.0).abs_(),
            self.tensor(f"{name}.weight", channels, about=1.0),
            self.tensor(f"{name}.bias", channels),
            eps=1e-5,
        )

    def linear(self, name, x, out):
        return F.linear(
            x, self.weight(f"{name}.weight", out, x.shape[-1]), self.tensor(f"{name}.bias", out)
        )

    def layer_norm(self, name, x, eps):
        width = x.shape[-1]
        weight = self.tensor(f"{name}.weight", width, about=1.0)
        return F.layer_norm(x, (width,), weight, self.tensor(f"{name}.bias", width), eps)


def bilinear(x, size, *, corners):
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=corners)


def attention(q, k, v, heads):
    """Return softmax(q k^T / sqrt(d)) v of Float[B N C] tensors."""
    q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    scores = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
    return (scores @ v).transpose(1, 2).flatten(2)


def resnet50(p, images, *, prefix=""):
    """UniMatch's ResNet-50: three 3x3 in the stem, stride 16, the last stage dilated."""
    x = images
    for place, (out, stride) in zip((0, 3, 6), ((64, 2), (64, 1), (128, 1)), strict=True):
        x = p.conv(f"{prefix}conv1.{place}", x, out, 3, stride=stride)
        name = f"{prefix}bn1" if place == 6 else f"{prefix}conv1.{place + 1}"
        x = p.norm(name, x).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    levels = []
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(blocks):
            name = f"{prefix}layer{stage}.{block}"
            stride = 2 if block == 0 and stage in (2, 3) else 1
            dilation = 2 if block > 0 and stage == 4 else 1
            y = p.norm(f"{name}.bn1", p.conv(f"{name}.conv1", x, width, 1)).relu()
            y = p.conv(f"{name}.conv2", y, width, 3, stride=stride, dilation=dilation,
                       padding=dilation)  # fmt: skip
            y = p.norm(f"{name}.bn2", y).relu()
            y = p.norm(f"{name}.bn3", p.conv(f"{name}.conv3", y, 4 * width, 1))
            if block == 0:
                x = p.conv(f"{name}.downsample.0", x, 4 * width, 1, stride=stride)
                x = p.norm(f"{name}.downsample.1", x)
            x = (x + y).relu()
        levels.append(x)
    return levels[0], levels[-1]


def separable(p, name, x, out, *, stride=1, relu_first=True):
    if relu_first:
        x = x.relu()
    x = p.conv(f"{name}.depthwise", x, x.shape[1], 3, stride=stride, groups=x.shape[1])
    x = p.norm(f"{name}.bn1", x)
    x = p.norm(f"{name}.bn2", p.conv(f"{name}.pointwise", x if relu_first else x.relu(), out, 1))
    return x if relu_first else x.relu()


def xception65(p, images, *, prefix=""):
    """UniMatch's Xception-65, whose ReLU of identity blocks also overwrites the shortcut."""
    x = p.norm(f"{prefix}bn1", p.conv(f"{prefix}conv1", images, 32, 3, stride=2)).relu()
    x = p.norm(f"{prefix}bn2", p.conv(f"{prefix}conv2", x, 64, 3)).relu()
    widths = [(128, 2), (256, 2), (728, 2), *[(728, 1)] * 16, (1024, 1)]
    for k, (out, stride) in enumerate(widths, 1):
        name = f"{prefix}block{k}"
        if 4 <= k <= 19:
            x = shortcut = x.relu()
        else:
            shortcut = p.norm(f"{name}.skipbn", p.conv(f"{name}.skip", x, out, 1, stride=stride))
        first = x.shape[1] if k == 20 else out
        x = separable(p, f"{name}.sepconv2", separable(p, f"{name}.sepconv1", x, first), out)
        if k == 2:
            low = x
        x = separable(p, f"{name}.sepconv3", x, out, stride=stride) + shortcut
    for k, out in ((3, 1536), (4, 1536), (5, 2048)):
        x = separable(p, f"{prefix}conv{k}", x, out, relu_first=False)
    return low, x


def deeplab_decoder(p, low, high, size, *, classes, rates=(6, 12, 18)):
    branches = [p.norm("head.b0.1", p.conv("head.b0.0", high, 256, 1)).relu()]
    for k, rate in enumerate(rates, 1):
        x = p.conv(f"head.b{k}.0", high, 256, 3, padding=rate, dilation=rate)
        branches.append(p.norm(f"head.b{k}.1", x).relu())
    pooled = p.conv("head.b4.gap.1", high.mean((2, 3), keepdim=True), 256, 1)
    branches.append(p.norm("head.b4.gap.2", pooled).relu().expand_as(branches[0]))
    x = p.norm("head.project.1", p.conv("head.project.0", torch.cat(branches, 1), 256, 1)).relu()
    x = bilinear(x, low.shape[2:], corners=True)
    low = p.norm("reduce.1", p.conv("reduce.0", low, 48, 1)).relu()
    x = p.norm("fuse.1", p.conv("fuse.0", torch.cat([low, x], 1), 256, 3)).relu()
    x = p.norm("fuse.4", p.conv("fuse.3", x, 256, 3)).relu()
    return bilinear(p.conv("classifier", x, classes, 1, bias=True), size, corners=True)


def mit_b0(p, x, *, prefix=""):
    """NVIDIA's Mix Transformer B0; layer norms of blocks add 1e-6, the others 1e-5."""
    levels = []
    for k, (width, heads, ratio) in enumerate(
        ((32, 1, 8), (64, 2, 4), (160, 5, 2), (256, 8, 1)), 1
    ):
        embed = f"{prefix}patch_embed{k}"
        x = p.conv(
            f"{embed}.proj", x, width, 7 if k == 1 else 3, stride=4 if k == 1 else 2, bias=True
        )
        grid = x.shape[2:]
        x = p.layer_norm(f"{embed}.norm", x.flatten(2).transpose(1, 2), 1e-5)
        for block in range(2):
            name = f"{prefix}block{k}.{block}"
            y = p.layer_norm(f"{name}.norm1", x, 1e-6)
            x = x + mit_attention(p, f"{name}.attn", y, grid, heads=heads, ratio=ratio)
            y = p.layer_norm(f"{name}.norm2", x, 1e-6)
            y = p.linear(f"{name}.mlp.fc1", y, 4 * width).transpose(1, 2).unflatten(2, grid)
            y = p.conv(f"{name}.mlp.dwconv.dwconv", y, 4 * width, 3, groups=4 * width, bias=True)
            x = x + p.linear(f"{name}.mlp.fc2", F.gelu(y.flatten(2).transpose(1, 2)), width)
        x = p.layer_norm(f"{prefix}norm{k}", x, 1e-6).transpose(1, 2).unflatten(2, grid)
        levels.append(x)
    return levels


def mit_attention(p, name, x, grid, *, heads, ratio):
    width, source = x.shape[2], x
    if ratio > 1:
        source = x.transpose(1, 2).unflatten(2, grid)
        source = p.conv(f"{name}.sr", source, width, ratio, stride=ratio, padding=0, bias=True)
        source = p.layer_norm(f"{name}.norm", source.flatten(2).transpose(1, 2), 1e-5)
    q = p.linear(f"{name}.q", x, width)
    k, v = p.linear(f"{name}.kv", source, 2 * width).chunk(2, dim=2)
    return p.linear(f"{name}.proj", attention(q, k, v, heads), width)


def segformer_decoder(p, levels, *, classes, width, prefix=""):
    """SegFormer's head: linear maps, upsampling, concatenation from coarse to fine, fusion.

    Returns the logits at the finest level's size.
    """
    finest = levels[0].shape[2:]
    maps = []
    for k, level in enumerate(levels, 1):
        tokens = p.linear(f"{prefix}linear_c{k}.proj", level.flatten(2).transpose(1, 2), width)
        image = tokens.transpose(1, 2).unflatten(2, level.shape[2:])
        maps.append(bilinear(image, finest, corners=False))
    x = p.conv(f"{prefix}linear_fuse.conv", torch.cat(maps[::-1], 1), width, 1)
    x = p.norm(f"{prefix}linear_fuse.bn", x).relu()
    return p.conv(f"{prefix}linear_pred", x, classes, 1, bias=True)


def dinov2_small(p, images, *, prefix=""):
    """DINOv2 ViT-S/14: the normed outputs of blocks 2, 5, 8, 11, as maps."""
    grid = [side // 14 for side in images.shape[2:]]
    x = p.conv(f"{prefix}patch_embed.proj", images, 384, 14, stride=14, padding=0, bias=True)
    p.tensor(f"{prefix}mask_token", 1, 384)
    classes = p.tensor(f"{prefix}cls_token", 1, 1, 384).expand(len(x), -1, -1)
    places = p.tensor(f"{prefix}pos_embed", 1, 1 + 37 * 37, 384)
    square = places[:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    if grid != [37, 37]:
        scale = [(cells + 0.1) / 37 for cells in grid]
        square = F.interpolate(square, scale_factor=scale, mode="bicubic")
    places = torch.cat([places[:, :1], square.flatten(2).transpose(1, 2)], 1)
    x = torch.cat([classes, x.flatten(2).transpose(1, 2)], 1) + places
    levels = []
    for block in range(12):
        name = f"{prefix}blocks.{block}"
        q, k, v = p.linear(f"{name}.attn.qkv", p.layer_norm(f"{name}.norm1", x, 1e-6), 1152).chunk(
            3, 2
        )
        y = p.linear(f"{name}.attn.proj", attention(q, k, v, 6), 384)
        x = x + y * p.tensor(f"{name}.ls1.gamma", 384, about=0.5)
        y = p.linear(f"{name}.mlp.fc1", p.layer_norm(f"{name}.norm2", x, 1e-6), 1536)
        y = p.linear(f"{name}.mlp.fc2", F.gelu(y), 384)
        x = x + y * p.tensor(f"{name}.ls2.gamma", 384, about=0.5)
        if block in (2, 5, 8, 11):
            levels.append(p.layer_norm(f"{prefix}norm", x, 1e-6)[:, 1:])
    return [level.transpose(1, 2).unflatten(2, grid) for level in levels]


def dpt_decoder(p, levels, *, classes, width=64, widths=(48, 96, 192, 384)):
    """UniMatch V2's DPT head, logits at 14 pixels per cell."""

    def unit(name, x):
        y = p.conv(f"{name}.conv1", x.relu(), width, 3, bias=True)
        return x + p.conv(f"{name}.conv2", y.relu(), width, 3, bias=True)

    grid, x, sizes = levels[0].shape[2:], None, []
    pyramid = []
    for k, (level, out) in enumerate(zip(levels, widths, strict=True)):
        y = p.conv(f"head.projects.{k}", level, out, 1, bias=True)
        name = f"head.resize_layers.{k}"
        if k < 2:
            kernel = (4, 2)[k]
            weight, bias = (
                p.weight(f"{name}.weight", out, out, kernel, kernel),
                p.tensor(f"{name}.bias", out),
            )
            y = F.conv_transpose2d(y, weight, bias, stride=kernel)
        elif k == 3:
            y = p.conv(name, y, out, 3, stride=2, bias=True)
        pyramid.append(p.conv(f"head.scratch.layer{k + 1}_rn", y, width, 3))
    sizes = [[2 * side for side in pyramid[0].shape[2:]], *(y.shape[2:] for y in pyramid)]
    for k in (3, 2, 1, 0):
        name = f"head.scratch.refinenet{k + 1}"
        level = unit(f"{name}.resConfUnit1", pyramid[k])
        x = pyramid[k] if x is None else x + level
        x = bilinear(unit(f"{name}.resConfUnit2", x), sizes[k], corners=True)
        x = p.conv(f"{name}.out_conv", x, width, 1, bias=True)
    x = p.conv("head.scratch.output_conv.0", x, width, 3, bias=True).relu()
    x = p.conv("head.scratch.output_conv.2", x, classes, 1, bias=True)
    return bilinear(x, [14 * side for side in grid], corners=True)
