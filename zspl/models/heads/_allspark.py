"""AllSpark (Wang et al. 2024): the coarsest level of labeled crops, rebuilt from unlabeled ones.

Attention runs between channels (methods.md 3.1). A channel of a labeled crop is the query; its
keys and values are channels of unlabeled crops, or of a memory of them. Unlabeled crops attend to
themselves through projections of their own. B images, N positions, C channels, H heads.

Evaluation follows one rule: an image is its own source of keys and values. That is the official
evaluation, which sees one image at a time; with more, the official module mixes all images of a
batch, and its output depends on which they are. Here it does not, but for `rebuild_together`.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6
"""Of the layer norms around the attention."""

KeySource = Callable[[Float[Tensor, "B N C"]], Float[Tensor, "M N C"]]
"""Returns what labeled crops take keys and values from, given the unlabeled crops' tokens."""


def _over_keys(scores: Float[Tensor, "B H D M"]) -> Float[Tensor, "B H D M"]:
    """Normalise each image's matrix as a whole, then each query over its keys."""
    return F.instance_norm(scores, eps=1e-5).softmax(dim=-1)


class ChannelAttention(nn.Module):
    """Attention between channels; every head is as wide as the feature."""

    def __init__(self, channels: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        inner = channels * heads
        self.q_u = nn.Linear(channels, inner, bias=False)
        self.k_u = nn.Linear(channels, inner, bias=False)
        self.v_u = nn.Linear(channels, inner, bias=False)
        self.q_l2u = nn.Linear(channels, inner, bias=False)
        self.k_l2u = nn.Linear(channels, inner, bias=False)
        self.v_l2u = nn.Linear(channels, inner, bias=False)
        self.out_u = nn.Linear(inner, channels, bias=False)
        self.out_l2u = nn.Linear(inner, channels, bias=False)
        self.dropout = nn.Dropout(dropout)
        for linear in self.children():
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)

    def among_unlabeled(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Let the channels of each unlabeled crop attend to each other, head by head."""
        query, key, value = (
            linear(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.q_u, self.k_u, self.v_u)
        )
        weights = self.dropout(_over_keys(query.mT @ key))
        # One head's output lies next to the other's for each channel, as in the official code.
        mixed = (weights @ value.mT).permute(0, 3, 2, 1).flatten(2)
        out: Tensor = self.dropout(self.out_u(mixed))
        return out

    def from_shared(
        self, tokens: Float[Tensor, "B N C"], source: Float[Tensor, "M N C"]
    ) -> Float[Tensor, "B N C"]:
        """Let the channels of each labeled crop attend to all channels of all sources.

        Args:
            tokens: Of the labeled crops.
            source: Tokens of the unlabeled crops, or the memory, a source per class.
        """
        key, value = (
            linear(source).transpose(0, 1).flatten(1) for linear in (self.k_l2u, self.v_l2u)
        )
        return self._labeled(tokens, key, value)

    def from_itself(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Let the channels of each labeled crop attend to those of the same crop."""
        return self._labeled(tokens, self.k_l2u(tokens), self.v_l2u(tokens))

    def _labeled(self, tokens: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = self.q_l2u(tokens).mT @ key
        weights = self.dropout(_over_keys(scores.unsqueeze(1)).squeeze(1))
        out: Tensor = self.dropout(self.out_l2u((weights @ value.mT).mT))
        return out


class AllSpark(nn.Module):
    """A convolution into tokens, attention with a shortcut, and a convolution back."""

    def __init__(self, channels: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.map_in = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU())
        self.attn_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.attn = ChannelAttention(channels, heads=heads, dropout=dropout)
        self.encoder_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.map_out = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU())

    def forward(self, level: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Rebuild each image from itself."""
        tokens = self._tokens(level)
        return self._level(tokens + self.attn.from_itself(self.attn_norm(tokens)), level)

    def rebuild_together(self, level: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Rebuild each image from all images of the batch, as the official code labels crops."""
        tokens = self._tokens(level)
        normed = self.attn_norm(tokens)
        return self._level(tokens + self.attn.from_shared(normed, normed), level)

    def rebuild(
        self, level: Float[Tensor, "B C h w"], *, labeled: int, source: KeySource
    ) -> Float[Tensor, "B C h w"]:
        """Rebuild labeled crops from unlabeled ones, and these from themselves.

        Args:
            level: Of the labeled crops, then of the unlabeled ones.
            labeled: How many are labeled.
            source: Chooses the keys' source from the unlabeled crops' tokens; called once.
        """
        tokens = self._tokens(level)
        normed = self.attn_norm(tokens)
        own, unlabeled = normed[:labeled], normed[labeled:]
        rebuilt = [
            self.attn.from_shared(own, source(unlabeled)),
            self.attn.among_unlabeled(unlabeled),
        ]
        return self._level(tokens + torch.cat(rebuilt), level)

    def _tokens(self, level: Tensor) -> Tensor:
        mapped: Tensor = self.map_in(level)
        return mapped.flatten(2).mT

    def _level(self, tokens: Tensor, like: Tensor) -> Tensor:
        out: Tensor = self.map_out(self.encoder_norm(tokens).mT.reshape(like.shape))
        return out


class SparkedHead(nn.Module):
    """Any decoder, with the coarsest level rebuilt by AllSpark before it."""

    def __init__(self, decoder: nn.Module, allspark: AllSpark) -> None:
        super().__init__()
        self.decoder = decoder
        self.allspark = allspark

    def forward(
        self, features: Sequence[Tensor], size: tuple[int, int]
    ) -> Float[Tensor, "B C height width"]:
        """Return class logits at `size` = (height, width); an image never sees another one."""
        return self.decode_with(features, self.allspark(features[-1]), size)

    def decode_with(
        self, features: Sequence[Tensor], coarsest: Float[Tensor, "B D h w"], size: tuple[int, int]
    ) -> Float[Tensor, "B C height width"]:
        """Return class logits at `size` from the finer levels and a rebuilt coarsest one."""
        logits: Tensor = self.decoder([*features[:-1], coarsest], size)
        return logits
