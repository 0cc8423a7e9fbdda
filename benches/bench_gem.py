"""GEM of one image at ViT-B/16, 448 px, against its plain form. `make bench`.

The plain form computes each attention on its own and, like the published package, embeds the text
of all classes at every image.
"""

import runpy
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from zspl.features import _open_clip, gem
from zspl.features._open_clip import LoadedClip

TESTS = Path(__file__).parents[1] / "tests" / "features"
WANTED = 1.7
CLASSES = [f"a thing of kind {k}" for k in range(80)]


@pytest.fixture(scope="module")
def encoder():
    """A GEM encoder of true size whose weights are random."""
    torch.manual_seed(0)
    loaded = LoadedClip(
        model=open_clip.create_model("ViT-B-16-quickgelu", pretrained=None).eval(),
        tokenizer=open_clip.get_tokenizer("ViT-B-16"),
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSPL_DEVICE", "cpu")
        patch.setattr(_open_clip, "load", lambda _: loaded)
        return gem.build(gem.Settings())


@pytest.fixture(scope="module")
def photo():
    pixels = np.random.default_rng(0).integers(0, 255, (375, 500, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def cosine(expected, found):
    """Return the smallest cosine between the vectors of both, one row each."""
    return f"cos {torch.nn.functional.cosine_similarity(expected, found, dim=-1).min():.7f}"


def plain(encoder, photo, *, texts):
    """Return a function that does one image in the plain form."""
    tokens_of = runpy.run_path(str(TESTS / "plain_gem.py"))["plain_gem_tokens"]
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    prompts = [f"a photo of a {name}" for name in texts]

    @torch.inference_mode()
    def call():
        if prompts:
            encoder.model.encode_text(tokenizer(prompts), normalize=True)
        return tokens_of(encoder.model, encoder.pixels(photo)[None])[0][0, 1:]

    return call


def ours(encoder, photo, *, texts):
    """Return a function that does one image as the stage `embed` does."""

    def call():
        if texts:
            encoder.text(texts)
        return encoder.dense(photo).grid.flatten(1).T

    return call


@pytest.mark.parametrize(("classes", "pairs"), [(0, 3), (21, 5), (80, 1)])
def bench_gem(compare, encoder, photo, classes, pairs):
    texts = CLASSES[:classes]
    compare(
        f"gem ViT-B/16 448, text of {classes} classes" if classes else "gem ViT-B/16 448, image",
        plain(encoder, photo, texts=texts),
        ours(encoder, photo, texts=texts),
        parity=cosine,
        bound=WANTED if classes else None,
        pairs=pairs,
    )
