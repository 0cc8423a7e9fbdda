"""The tiny CLIP: its configuration, its compact vocabulary, and its file of weights."""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from zspl.errors import WeightsError
from zspl.io import atomic
from zspl.toyworld.vocabulary import CORPUS_WORDS, KNOWN_WORDS, CheckedTokenizer, check

if TYPE_CHECKING:
    import open_clip

FOLDER: Path = Path(__file__).parent / "weights"
"""Where the shipped weights lie."""

CONTEXT_LENGTH = 20
STOCK_VOCABULARY = 49408
TRAINED_SIZE = 64
SHIPPED_SIZE = 96

BACKGROUND_SENTENCE = "a photo of a plain background"
BACKGROUND_SHIFT = 1.2
"""Multiple of the background sentence's vector that is taken from every text vector."""

MEAN: Tensor = torch.tensor([0.5, 0.5, 0.5]).view(3, 1, 1)
STD: Tensor = torch.tensor([0.25, 0.25, 0.25]).view(3, 1, 1)

_TOKENS = "token_embedding.weight"
_POSITIONS = "visual.positional_embedding"
_LAST_BIAS = "ln_final.bias"


def config(image_size: int) -> dict[str, Any]:
    """Return open_clip's model configuration for square images of this side, in pixels."""
    return {
        "embed_dim": 128,
        "quick_gelu": False,
        "vision_cfg": {
            "image_size": image_size,
            "patch_size": 8,
            "layers": 4,
            "width": 128,
            "head_width": 32,
            "patch_dropout": 0.5,
            "pool_type": "tok",
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": STOCK_VOCABULARY,
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    }


def tokenizer() -> CheckedTokenizer:
    """Return the stock open_clip tokenizer with the tiny model's context length."""
    from open_clip import SimpleTokenizer

    stock = SimpleTokenizer(context_length=CONTEXT_LENGTH)
    return CheckedTokenizer(stock=stock, known=KNOWN_WORDS)


@functools.cache
def used_ids() -> Int64[Tensor, " U"]:
    """Stock token ids that occur in captions, ascending; padding first, end of text last."""
    ids: Tensor = torch.unique(tokenizer_once().stock(sorted(CORPUS_WORDS)))
    return ids


@functools.lru_cache(maxsize=200_000)
def _compact_row(text: str) -> Int64[Tensor, " L"]:
    check([text], known=CORPUS_WORDS)
    return torch.searchsorted(used_ids(), tokenizer_once().stock([text])[0])


@functools.cache
def tokenizer_once() -> CheckedTokenizer:
    """Return one tokenizer for the whole process; reading its vocabulary takes a second."""
    return tokenizer()


def compact_ids(texts: list[str]) -> Int64[Tensor, "K L"]:
    """Tokenize captions with ids counted among `used_ids` only.

    Training keeps an embedding of the used rows; the order is kept, so that the end of text still
    has the largest id, which is where the stock text encoder pools.

    Args:
        texts: Captions of known words.

    Returns:
        Compact token ids.

    Raises:
        WeightsError: if a word is not in the corpus.
    """
    return torch.stack([_compact_row(text) for text in texts])


def new_model() -> "open_clip.CLIP":
    """Build an untrained tiny CLIP over the compact vocabulary."""
    return _build(config(TRAINED_SIZE), len(used_ids()))


def _build(cfg: dict[str, Any], vocabulary: int) -> "open_clip.CLIP":
    import open_clip

    return open_clip.CLIP(
        embed_dim=cfg["embed_dim"],
        vision_cfg=cfg["vision_cfg"],
        text_cfg={**cfg["text_cfg"], "vocab_size": vocabulary},
        quick_gelu=cfg["quick_gelu"],
    )


def _resampled(positions: Tensor, grid: int) -> Tensor:
    side = int((len(positions) - 1) ** 0.5)
    patches = positions[1:].T.reshape(1, -1, side, side)
    wider = F.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([positions[:1], wider.flatten(2)[0].T])


def _away_from_background(state: dict[str, Tensor]) -> Tensor:
    """The text tower's last bias, moved against the sentence that names only background."""
    model = new_model().eval()
    model.load_state_dict(state)
    kept: list[Tensor] = []
    model.ln_final.register_forward_hook(lambda _module, _given, out: kept.append(out))
    ids = compact_ids([BACKGROUND_SENTENCE])
    with torch.no_grad():
        model.encode_text(ids)
    return state[_LAST_BIAS] - BACKGROUND_SHIFT * kept[0][0, int(ids[0].argmax())]


def write(state: dict[str, Tensor], folder: Path, *, image_size: int = SHIPPED_SIZE) -> None:
    """Write trained weights in half precision, with the configuration beside them.

    The positional embedding is resampled to `image_size`; the token embedding keeps its used rows.
    Unlike CLIP, every text vector is moved by -1.2 times the vector of the background sentence:
    a contrastive loss leaves the cosine of background with all classes free, and a threshold on
    the cosine needs it low. The move is one bias, so the model stays a stock open_clip one.

    Args:
        state: State dict of `new_model()` after training.
        folder: Receives `tiny_clip.safetensors` and `tiny_clip.json`.
        image_size: Input side of the shipped model, in pixels.
    """
    cfg = config(image_size)
    grid = image_size // cfg["vision_cfg"]["patch_size"]
    changed = state | {
        _POSITIONS: _resampled(state[_POSITIONS], grid),
        _LAST_BIAS: _away_from_background(state),
    }
    tensors = {name: value.to(torch.float16).contiguous() for name, value in changed.items()}
    tensors["token_ids"] = used_ids().to(torch.int32)
    atomic.write_bytes(folder / "tiny_clip.safetensors", save(tensors))
    cfg |= {"mean": MEAN.flatten().tolist(), "std": STD.flatten().tolist()}
    atomic.write_text(folder / "tiny_clip.json", json.dumps(cfg, indent=2) + "\n")


def read(folder: Path) -> tuple["open_clip.CLIP", dict[str, Any]]:
    """Build the tiny CLIP over the stock vocabulary from its files.

    Args:
        folder: Holds `tiny_clip.safetensors` and `tiny_clip.json`.

    Returns:
        The model in evaluation mode, float32, and its configuration with `mean` and `std`.

    Raises:
        WeightsError: if a file is missing or damaged.
    """
    weights, description = folder / "tiny_clip.safetensors", folder / "tiny_clip.json"
    for path in (weights, description):
        if not path.is_file():
            raise WeightsError(f"{path.name} is missing beside the package; install zspl again")
    try:
        return _read(weights, description)
    except (SafetensorError, OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{folder}: the files tiny_clip.* are damaged ({type(error).__name__}: {reason}); "
            "install zspl again"
        ) from error


def _read(weights: Path, description: Path) -> tuple["open_clip.CLIP", dict[str, Any]]:
    cfg = json.loads(description.read_text(encoding="utf-8"))
    state = {name: value.float() for name, value in load_file(weights).items()}
    ids = state.pop("token_ids").long()
    rows = torch.zeros(STOCK_VOCABULARY, state[_TOKENS].shape[1])
    rows[ids] = state[_TOKENS]
    model = _build(cfg, STOCK_VOCABULARY)
    model.load_state_dict({**state, _TOKENS: rows})
    return model.eval(), cfg
