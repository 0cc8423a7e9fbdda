"""TinyViT, the image encoder of MobileSAM (Wu et al. 2022; Zhang et al. 2023, methods.md 1.6).

Four stages of width 64, 128, 160 and 320: two inverted residual blocks, then windowed attention
with a learned bias per offset. The last stage keeps the resolution, so that 1024 pixels become
64 x 64 vectors, as SAM's decoder wants. Parameters carry the names of the official checkpoint.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)
OUT = 256
_EXPANSION = 4
_IMAGENET_CLASSES = 1000


class ConvNorm(nn.Sequential):
    """A convolution without bias and its batch norm, `c` and `bn`."""

    def __init__(self, wide: int, out: int, size: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        pad = size // 2
        self.add_module("c", nn.Conv2d(wide, out, size, stride, pad, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(out))


class InvertedResidual(nn.Module):
    """Widen four times, look at the neighbours channel by channel, narrow, add (MBConv)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width * _EXPANSION
        self.conv1 = ConvNorm(width, inner, 1)
        self.conv2 = ConvNorm(inner, inner, 3, groups=inner)
        self.conv3 = ConvNorm(inner, width, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return gelu(x + block(x))."""
        inner = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(inner))


class Merging(nn.Module):
    """Change the width between two stages, and halve the resolution where `stride` is 2."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, out, 1)
        self.conv2 = ConvNorm(out, out, 3, stride=stride, groups=out)
        self.conv3 = ConvNorm(out, out, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return the input of the next stage."""
        merged: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return merged


class WindowAttention(nn.Module):
    """Attention inside a window, biased by how far apart two cells lie in y and in x."""

    bias_of_pair: Int[Tensor, "N N"]

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("bias_of_pair", _offsets(window), persistent=False)

    def forward(self, x: Float[Tensor, "W N C"]) -> Float[Tensor, "W N C"]:
        """Attend within each of W windows of N = window² cells."""
        count, cells, width = x.shape
        # Each head's q, k and v lie together in the projection.
        qkv = self.qkv(self.norm(x)).view(count, cells, self.heads, 3, -1)
        query, key, value = qkv.permute(3, 0, 2, 1, 4)
        bias = self.attention_biases[:, self.bias_of_pair].to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        attended: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, cells, width))
        return attended


class Mlp(nn.Module):
    """The two layers after attention, with their norm before them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width * _EXPANSION)
        self.fc2 = nn.Linear(width * _EXPANSION, width)

    def forward(self, x: Float[Tensor, "... C"]) -> Float[Tensor, "... C"]:
        """Return what is added to x."""
        added: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return added


class Block(nn.Module):
    """Windowed attention, a 3 x 3 depthwise convolution, and the two layers."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Apply the three parts; the first and the last are added to what they see."""
        cells = x.permute(0, 2, 3, 1)
        x = self.local_conv((cells + self._attended(cells)).permute(0, 3, 1, 2))
        cells = x.permute(0, 2, 3, 1)
        mixed: Tensor = cells + self.mlp(cells)
        return mixed.permute(0, 3, 1, 2)

    def _attended(self, cells: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        batch, height, width, channels = cells.shape
        side = self.window
        # Zeros fill the last windows; they are attended to, as when the weights were trained.
        padded = F.pad(cells, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = padded.shape[1] // side, padded.shape[2] // side
        windows = padded.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        attended: Tensor = self.attn(windows.reshape(-1, side * side, channels))
        attended = attended.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        return attended.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]


class Stage(nn.Module):
    """Blocks of one width, then the step to the next width if there is one."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return the input of the next stage."""
        for part in (*self.blocks, self.downsample):
            x = x if part is None else part(x)
        return x


class TinyViT(nn.Module):
    """The 5M TinyViT as MobileSAM trained it.

    Args:
        img_size: Side of the square image in pixels, read by SAM's preprocessing; 1024 for the
            official weights. The network itself takes any multiple of 16.
    """

    def __init__(self, img_size: int = 1024) -> None:
        super().__init__()
        from segment_anything.modeling.common import LayerNorm2d

        self.img_size = img_size
        first = WIDTHS[0]
        self.patch_embed = nn.ModuleDict({
            "seq": nn.Sequential(
                ConvNorm(3, first // 2, 3, stride=2), nn.GELU(),
                ConvNorm(first // 2, first, 3, stride=2),
            )
        })  # fmt: skip
        self.layers = nn.ModuleList(_stage(index) for index in range(len(WIDTHS)))
        # The classifier is in the official file and takes no part in SAM.
        self.norm_head = nn.LayerNorm(WIDTHS[-1])
        self.head = nn.Linear(WIDTHS[-1], _IMAGENET_CLASSES)
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], OUT, 1, bias=False),
            LayerNorm2d(OUT),
            nn.Conv2d(OUT, OUT, 3, padding=1, bias=False),
            LayerNorm2d(OUT),
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 256 h w"]:
        """Embed normalised images, one vector per 16 x 16 pixels."""
        x = self.patch_embed["seq"](images)
        for layer in self.layers:
            x = layer(x)
        embedded: Tensor = self.neck(x)
        return embedded


def _stage(index: int) -> Stage:
    width = WIDTHS[index]
    if index == 0:
        blocks: list[nn.Module] = [InvertedResidual(width) for _ in range(DEPTHS[0])]
    else:
        blocks = [Block(width, HEADS[index], WINDOWS[index]) for _ in range(DEPTHS[index])]
    if index + 1 == len(WIDTHS):
        return Stage(blocks, None)
    last = index + 2 == len(WIDTHS)
    return Stage(blocks, Merging(width, WIDTHS[index + 1], stride=1 if last else 2))


def _offsets(window: int) -> Int[Tensor, "N N"]:
    """Number every pair of cells by |dy|, |dx|: the columns of `attention_biases`."""
    places = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    apart = (places[:, None] - places[None]).abs()
    return apart[..., 0] * window + apart[..., 1]
