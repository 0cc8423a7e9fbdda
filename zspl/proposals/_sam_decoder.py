"""SAM's mask decoder for many points of one image, with what the points share computed once.

The algebra is that of `segment_anything`'s TwoWayTransformer and MaskDecoder, reassociated:
in the first layer every point sees the same image, and later the projections of the image tokens
are folded into the few prompt tokens. B prompts, T prompt tokens, n = h * w image tokens,
C channels, H heads of d channels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from zspl.proposals._sam_attention import FoldedAttention

if TYPE_CHECKING:
    from segment_anything.modeling import MaskDecoder, Sam
    from segment_anything.modeling.common import LayerNorm2d
    from segment_anything.modeling.transformer import TwoWayAttentionBlock

# Upscaled together; on a CPU 512 tokens are 1 MB at their finest, which stays in its cache.
_TOKENS_AT_ONCE = {"cpu": 512, "cuda": 64 * 4096}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What every prompt on one image shares; the shapes are those of the first layer.

    `image` are the image tokens, `key` and `value` what prompt tokens look at in them, `query`
    what the image tokens ask of the prompt tokens.
    """

    image: Float[Tensor, "1 n C"]
    key: Float[Tensor, "H d n"]
    value: Float[Tensor, "H n d"]
    query: Float[Tensor, "H d n"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """Prompts after the transformer: scores of three masks each, and what draws the masks."""

    scores: Float[Tensor, "B M"]
    image: Float[Tensor, "B n C"]
    strokes: Float[Tensor, "B M D"]


class Decoder:
    """The mask decoder of a `Sam`, reading its weights; computes the image tokens in `dtype`.

    Prompt tokens, scores and the product that gives the logits are always float32. Of the four
    masks the first, meant for prompts of several points, is never drawn.
    """

    def __init__(self, sam: "Sam", dtype: torch.dtype = torch.float32) -> None:
        decoder, transformer = sam.mask_decoder, sam.mask_decoder.transformer
        self._decoder = decoder
        self._dtype = dtype
        self._no_mask = sam.prompt_encoder.no_mask_embed.weight
        position = sam.prompt_encoder.get_dense_pe()
        self._grid = (int(position.shape[2]), int(position.shape[3]))
        self._position = position.flatten(2).squeeze(0)
        self._output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        # 0 is the score, 1 the mask that is not drawn
        self._read = [0, *range(2, 1 + decoder.num_mask_tokens)]
        self._layers = [
            _Layer(layer, self._position, dtype, first=index == 0)
            for index, layer in enumerate(transformer.layers)
        ]
        self._final = FoldedAttention(transformer.final_attn_token_to_image, dtype)
        self._final_position = self._final.keys_of(self._position)
        self._final_norm = transformer.norm_final_attn
        self._upscaling = _Upscaling(decoder, dtype)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the image tokens; masks are `scale` times finer."""
        return self._grid

    @property
    def scale(self) -> int:
        """How many pixels of a mask one image token becomes, in each direction."""
        return self._upscaling.scale

    def look_at(self, embedding: Float[Tensor, "C h w"]) -> Scene:
        """Prepare an image's embedding for any number of prompts."""
        tokens = embedding.float().flatten(1) + self._no_mask.T
        seen = tokens + self._position
        first = self._layers[0]
        image = tokens.T[None].to(self._dtype).contiguous()
        return Scene(
            image=image,
            key=first.to_image.keys_of(seen).to(self._dtype),
            value=first.to_image.values_of(tokens).to(self._dtype),
            query=first.to_prompt.queries_of(seen).to(self._dtype),
        )

    def decode(self, scene: Scene, prompts: Float[Tensor, "B P C"]) -> Decoded:
        """Run the transformer for the embedded points of B prompts and score their masks."""
        count = len(prompts)
        tokens = torch.cat([self._output_tokens.expand(count, -1, -1), prompts], dim=1)
        state, image = tokens, scene.image
        for layer in self._layers:
            state, image = layer(scene, state, image, tokens)
        state, tokens = state[:, self._read], tokens[:, self._read]
        found = self._final.look(state + tokens, image, self._final_position)
        state = self._final_norm(state + found)
        hypernetworks = self._decoder.output_hypernetworks_mlps
        strokes = [hypernetworks[m](state[:, m]) for m in range(1, state.shape[1])]
        return Decoded(
            scores=self._decoder.iou_prediction_head(state[:, 0])[:, 1:],
            image=image,
            strokes=torch.stack(strokes, dim=1),
        )

    def draw(
        self, decoded: Decoded, prompts: Int64[Tensor, " P"], *, rows: int
    ) -> Float[Tensor, "P M y x"]:
        """Draw the logits of some prompts' masks, as far down as `rows` rows of image tokens."""
        strokes = decoded.strokes[prompts]
        width = self._grid[1]
        logits = strokes.new_empty(*strokes.shape[:2], rows * self.scale, width * self.scale)
        at_once = _TOKENS_AT_ONCE.get(logits.device.type, _TOKENS_AT_ONCE["cuda"])
        step = min(rows, max(1, at_once // width))
        together = max(1, at_once // (step * width))
        for begin in range(0, len(prompts), together):
            chosen = slice(begin, begin + together)
            for top in range(0, rows, step):
                bottom = min(rows, top + step)
                tokens = decoded.image[prompts[chosen], top * width : bottom * width]
                part = slice(top * self.scale, bottom * self.scale)
                logits[chosen, :, part] = self._upscaling(tokens, strokes[chosen], width)
        return logits


class _Layer:
    """One two-way layer; the first one reads the projections that the prompts share."""

    def __init__(
        self,
        layer: "TwoWayAttentionBlock",
        position: Float[Tensor, "C n"],
        dtype: torch.dtype,
        *,
        first: bool,
    ) -> None:
        self._layer = layer
        self._first = first
        self.to_image = FoldedAttention(layer.cross_attn_token_to_image, dtype)
        self.to_prompt = FoldedAttention(layer.cross_attn_image_to_token, dtype)
        if not first:
            self._key_position = self.to_image.keys_of(position)
            self._query_position = self.to_prompt.queries_of(position)

    def __call__(
        self,
        scene: Scene,
        state: Float[Tensor, "B T C"],
        image: Float[Tensor, "_ n C"],
        tokens: Float[Tensor, "B T C"],
    ) -> tuple[Float[Tensor, "B T C"], Float[Tensor, "B n C"]]:
        layer = self._layer
        if layer.skip_first_layer_pe:
            state = layer.self_attn(q=state, k=state, v=state)
        else:
            asking = state + tokens
            state = state + layer.self_attn(q=asking, k=asking, v=state)
        state = layer.norm1(state)
        if self._first:
            found = self.to_image.look_shared(state + tokens, scene.key, scene.value)
        else:
            found = self.to_image.look(state + tokens, image, self._key_position)
        state = layer.norm2(state + found)
        state = layer.norm3(state + layer.mlp(state))
        if self._first:
            image = self.to_prompt.answer_shared(state + tokens, state, image, scene.query)
        else:
            image = self.to_prompt.answer(state + tokens, state, image, self._query_position)
        return state, _normalised(layer.norm4, image)


class _Upscaling:
    """The two transposed convolutions (kernel = stride) as products, ending in the logits."""

    def __init__(self, decoder: "MaskDecoder", dtype: torch.dtype) -> None:
        first, self._norm, self._activation, second, self._last_activation = (
            decoder.output_upscaling
        )
        self._first = _as_product(first.weight, first.bias, dtype)
        self._second = _as_product(second.weight, second.bias, dtype)
        self._strides = (int(first.stride[0]), int(second.stride[0]))
        self.scale = self._strides[0] * self._strides[1]

    def __call__(
        self, tokens: Float[Tensor, "P n C"], strokes: Float[Tensor, "P M D"], width: int
    ) -> Float[Tensor, "P M y x"]:
        weight, bias = self._first
        inner = torch.addmm(bias, tokens.flatten(0, 1), weight)
        inner = _normalised(self._norm, inner.view(-1, len(self._norm.weight)))
        weight, bias = self._second
        fine: Tensor = self._last_activation(torch.addmm(bias, self._activation(inner), weight))
        fine = fine.view(len(tokens), -1, strokes.shape[2]).float()
        logits = strokes @ fine.mT
        one, two = self._strides
        # token row, token column, then row and column of either convolution's kernel
        logits = logits.view(*logits.shape[:2], -1, width, one, one, two, two)
        logits = logits.permute(0, 1, 2, 4, 6, 3, 5, 7)
        return logits.reshape(*logits.shape[:2], -1, width * self.scale)


def _as_product(
    weight: Float[Tensor, "C D y x"], bias: Float[Tensor, " D"], dtype: torch.dtype
) -> tuple[Float[Tensor, "C yxD"], Float[Tensor, " yxD"]]:
    stacked = weight.permute(0, 2, 3, 1).flatten(1).to(dtype).contiguous()
    return stacked, bias.repeat(weight.shape[2] * weight.shape[3]).to(dtype)


def _normalised(
    norm: "nn.LayerNorm | LayerNorm2d", values: Float[Tensor, "... C"]
) -> Float[Tensor, "... C"]:
    return F.layer_norm(
        values, values.shape[-1:], norm.weight.to(values), norm.bias.to(values), norm.eps
    )
