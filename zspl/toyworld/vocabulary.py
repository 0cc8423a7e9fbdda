"""The words the tiny CLIP was trained on, and the refusal of all others.

The shipped token embedding holds only the rows of these words; any other word would get a row of
zeros and a meaningless vector, so it is refused instead.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from zspl.errors import WeightsError
from zspl.toyworld.scene import PRETRAIN_CLASSES

GRAMMAR_WORDS: tuple[str, ...] = ("a", "photo", "of", "and")
"""Words of the captions that name nothing."""

BACKGROUND_WORDS: tuple[str, ...] = ("plain", "background")
"""Words of pre-training captions that no prompt may use: the shipped text vectors are measured
from the background's, so that its own vector says nothing."""

KNOWN_WORDS: frozenset[str] = frozenset(GRAMMAR_WORDS) | frozenset(PRETRAIN_CLASSES)
"""Every word a prompt may use."""

CORPUS_WORDS: frozenset[str] = KNOWN_WORDS | frozenset(BACKGROUND_WORDS)
"""Every word of the pre-training captions."""


def check(texts: Iterable[str], *, known: frozenset[str] = KNOWN_WORDS) -> None:
    """Refuse texts with words that the tiny CLIP has never seen.

    Args:
        texts: Prompts or class names; case does not matter.
        known: The words that are allowed.

    Raises:
        WeightsError: if a word is unknown; the message lists the unknown and the known words.

    Example:
        >>> check(["a photo of a zebra"])
    """
    words = {word for text in texts for word in re.findall(r"[^\s.,]+", text.lower())}
    unknown = sorted(words - known)
    if unknown:
        raise WeightsError(
            f"toyworld CLIP does not know {', '.join(map(repr, unknown))}: it was trained on "
            f"rendered textures only. Known classes: {', '.join(sorted(PRETRAIN_CLASSES))}; known "
            f"other words: {', '.join(GRAMMAR_WORDS)}. Use other CLIP weights for other classes."
        )


@dataclass(frozen=True, kw_only=True)
class CheckedTokenizer:
    """The stock open_clip tokenizer behind the check for unknown words.

    Attributes:
        stock: Tokenizer of open_clip with the model's context length.
        known: Words that prompts may use.
    """

    stock: Callable[[list[str]], Tensor]
    known: frozenset[str]

    def __call__(self, texts: str | Sequence[str]) -> Int64[Tensor, "K L"]:
        """Turn prompts into token ids, one row per prompt.

        Args:
            texts: One prompt or several.

        Returns:
            Token ids, padded with 0 to the context length.

        Raises:
            WeightsError: if a prompt has a word outside the corpus.
        """
        prompts = [texts] if isinstance(texts, str) else list(texts)
        check(prompts, known=self.known)
        return self.stock(prompts)
