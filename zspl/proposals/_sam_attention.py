"""Attention between a few prompt tokens and many image tokens, without projecting the image.

With queries q, the score q . (W_k x + b_k) is (W_k^T q) . x plus a constant that the softmax
cancels, and the mean of W_v x + b_v under weights that sum to 1 is W_v (mean of x) + b_v: both
projections apply to T tokens instead of n. The other direction folds likewise. B prompts,
T prompt tokens, n image tokens, C channels, H heads of d channels.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from segment_anything.modeling.transformer import Attention


class FoldedAttention:
    """The weights of `segment_anything`'s decoder attention, split by head.

    Methods with a position get it projected: it is the same for every image and prompt.
    """

    def __init__(self, attention: "Attention", dtype: torch.dtype) -> None:
        heads = attention.num_heads
        self._heads = heads
        self._dtype = dtype
        self._scale = (attention.internal_dim // heads) ** -0.5
        self._query = _by_head(attention.q_proj, heads)
        self._key = _by_head(attention.k_proj, heads)
        self._value = _by_head(attention.v_proj, heads)
        self._out = attention.out_proj
        out = torch.unflatten(attention.out_proj.weight.T, 0, (heads, -1))
        self._out_by_head = out.contiguous()

    def keys_of(self, tokens: Float[Tensor, "C n"]) -> Float[Tensor, "H d n"]:
        """Project image tokens to keys."""
        weight, bias = self._key
        return weight @ tokens + bias

    def queries_of(self, tokens: Float[Tensor, "C n"]) -> Float[Tensor, "H d n"]:
        """Project image tokens to queries."""
        weight, bias = self._query
        return weight @ tokens + bias

    def values_of(self, tokens: Float[Tensor, "C n"]) -> Float[Tensor, "H n d"]:
        """Project image tokens to values."""
        weight, bias = self._value
        return (weight @ tokens + bias).mT.contiguous()

    def look_shared(
        self,
        asking: Float[Tensor, "B T C"],
        key: Float[Tensor, "H d n"],
        value: Float[Tensor, "H n d"],
    ) -> Float[Tensor, "B T C"]:
        """Let prompt tokens look at an image that all prompts share."""
        query = self._split(self._query, asking) * self._scale
        weights = (query.to(key) @ key).softmax(dim=-1)
        found = (weights @ value).float()
        return self._joined(found, len(asking))

    def look(
        self,
        asking: Float[Tensor, "B T C"],
        image: Float[Tensor, "B n C"],
        position: Float[Tensor, "H d n"],
    ) -> Float[Tensor, "B T C"]:
        """Let the prompt tokens of each prompt look at its own image tokens."""
        query = self._split(self._query, asking) * self._scale
        scores = self._scores(query, self._key[0], image, position)
        mean = (scores.softmax(dim=-1) @ image).float()
        mean = torch.unflatten(mean, 1, (self._heads, -1)).transpose(0, 1).flatten(1, 2)
        weight, bias = self._value
        return self._joined(mean @ weight.mT + bias.mT, len(asking))

    def answer_shared(
        self,
        asking: Float[Tensor, "B T C"],
        telling: Float[Tensor, "B T C"],
        image: Float[Tensor, "1 n C"],
        query: Float[Tensor, "H d n"],
    ) -> Float[Tensor, "B n C"]:
        """Add to an image shared by all prompts what each one's prompt tokens tell it."""
        key = self._split(self._key, asking) * self._scale
        scores = self._by_prompt(key.to(query) @ query, len(asking))
        told = self._told(telling)
        weights = self._shares(scores)
        return torch.baddbmm(image.expand(len(asking), -1, -1), weights.mT, told)

    def answer(
        self,
        asking: Float[Tensor, "B T C"],
        telling: Float[Tensor, "B T C"],
        image: Float[Tensor, "B n C"],
        position: Float[Tensor, "H d n"],
    ) -> Float[Tensor, "B n C"]:
        """Add to each prompt's image tokens what its prompt tokens tell it; overwrites `image`."""
        key = self._split(self._key, asking) * self._scale
        # the bias of the image's queries is in `position`
        scores = self._scores(key, self._query[0], image, position)
        return image.baddbmm_(self._shares(scores).mT, self._told(telling))

    def _split(
        self, projection: tuple[Tensor, Tensor], tokens: Float[Tensor, "B T C"]
    ) -> Float[Tensor, "H BT d"]:
        weight, bias = projection
        return tokens.flatten(0, 1) @ weight.mT + bias.mT

    def _scores(
        self,
        tokens: Float[Tensor, "H BT d"],
        weight: Float[Tensor, "H d C"],
        image: Float[Tensor, "B n C"],
        position: Float[Tensor, "H d n"],
    ) -> Float[Tensor, "B HT n"]:
        folded = self._by_prompt(tokens @ weight, len(image)).to(image)
        placed = self._by_prompt(tokens @ position, len(image)).to(image)
        return torch.baddbmm(placed, folded, image.mT)

    def _shares(self, scores: Float[Tensor, "B HT n"]) -> Float[Tensor, "B HT n"]:
        return torch.unflatten(scores, 1, (self._heads, -1)).softmax(dim=2).flatten(1, 2)

    def _told(self, telling: Float[Tensor, "B T C"]) -> Float[Tensor, "B HT C"]:
        value = self._split(self._value, telling)
        # the shares of each head sum to 1, so all heads together add the bias once
        told = value @ self._out_by_head + self._out.bias / self._heads
        return self._by_prompt(told, len(telling)).to(self._dtype)

    def _by_prompt(self, values: Float[Tensor, "H BT x"], count: int) -> Float[Tensor, "B HT x"]:
        return torch.unflatten(values, 1, (count, -1)).transpose(0, 1).flatten(1, 2)

    def _joined(self, values: Float[Tensor, "H BT d"], count: int) -> Float[Tensor, "B T C"]:
        joined: Tensor = self._out(values.transpose(0, 1).flatten(1))
        return torch.unflatten(joined, 0, (count, -1))


def _by_head(projection: nn.Linear, heads: int) -> tuple[Tensor, Tensor]:
    """Return a linear layer's weight as [H d C] and its bias as [H d 1]."""
    weight = torch.unflatten(projection.weight, 0, (heads, -1)).contiguous()
    return weight, torch.unflatten(projection.bias, 0, (heads, -1))[..., None].contiguous()
