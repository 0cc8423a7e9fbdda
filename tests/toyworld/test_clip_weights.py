"""The shipped tiny CLIP: loads offline, is a stock open_clip model, refuses unknown words."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("open_clip")

from zspl.errors import WeightsError
from zspl.toyworld import clip_weights, corpus, pretrain_clip, vocabulary
from zspl.toyworld.load import load_clip
from zspl.toyworld.scene import BENCHMARK, BENCHMARK_CLASSES, PRETRAIN_CLASSES, render

PROMPTS = [f"a photo of a {name}" for name in BENCHMARK_CLASSES]


@pytest.fixture(scope="module")
def loaded():
    return load_clip()


def _normalised(images, mean, std):
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255.0
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def test_the_weights_make_a_stock_open_clip_model_in_evaluation_mode(loaded) -> None:
    import open_clip

    model, _, _, _, size = loaded
    assert type(model) is open_clip.CLIP
    assert not model.training
    assert size == BENCHMARK.size
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_weights_are_small() -> None:
    files = list(clip_weights.FOLDER.glob("tiny_clip.*"))
    assert len(files) == 2
    assert sum(path.stat().st_size for path in files) < 3_000_000


def test_the_cls_token_of_the_clip_stream_is_what_encode_image_returns(loaded) -> None:
    gem = pytest.importorskip("zspl.features.gem")
    model, _, mean, std, _ = loaded
    pixels = _normalised([render(s, spec=BENCHMARK).image for s in (1, 2)], mean, std)
    with torch.no_grad():
        _, clip = gem.gem_tokens(model, pixels, depth=5, ss_attn_temp=20.0)
        assert torch.allclose(clip[:, 0], model.encode_image(pixels), atol=1e-4)


def test_clip_finds_the_texture_that_fills_most_frames(loaded) -> None:
    model, tokenizer, mean, std, _ = loaded
    scenes = [render(seed, spec=BENCHMARK) for seed in range(40)]
    alone = [s for s in scenes if len(s.class_ids) == 1]
    with torch.no_grad():
        image = model.encode_image(_normalised([s.image for s in alone], mean, std), normalize=True)
        text = model.encode_text(tokenizer(PROMPTS), normalize=True)
    found = ((image @ text.T).argmax(1) + 1).tolist()
    assert np.mean([a == s.class_ids[0] for a, s in zip(found, alone, strict=True)]) > 0.5


@pytest.mark.parametrize("text", ["a photo of a giraffe and a dog", "dog", "a picture of a zebra"])
def test_a_word_outside_the_corpus_is_refused_with_the_known_ones(loaded, text: str) -> None:
    _, tokenizer, _, _, _ = loaded
    with pytest.raises(WeightsError, match=r"does not know '(dog|picture)'.*Known classes:.*zebra"):
        tokenizer([text])


def test_every_class_and_every_caption_word_is_known() -> None:
    vocabulary.check(PRETRAIN_CLASSES)
    vocabulary.check(["A photo of a zebra and a brick."])


def test_the_background_is_no_prompt_since_text_vectors_are_measured_from_it(loaded) -> None:
    _, tokenizer, _, _, _ = loaded
    with pytest.raises(WeightsError, match="'background', 'plain'"):
        tokenizer([clip_weights.BACKGROUND_SENTENCE])


def test_compact_ids_keep_the_order_of_stock_ids() -> None:
    texts = ["a photo of a zebra and a honeycomb", "a photo of a plain background"]
    stock = clip_weights.tokenizer().stock(texts)
    assert torch.equal(clip_weights.used_ids()[clip_weights.compact_ids(texts)], stock)
    assert torch.equal(clip_weights.compact_ids(texts).argmax(1), stock.argmax(1))


def test_written_text_vectors_are_the_trained_ones_less_a_share_of_the_background(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = clip_weights.new_model().eval()
    clip_weights.write(model.state_dict(), tmp_path)
    back, _ = clip_weights.read(tmp_path)
    with torch.no_grad():
        trained = model.encode_text(clip_weights.compact_ids(PROMPTS))
        background = model.encode_text(clip_weights.compact_ids([clip_weights.BACKGROUND_SENTENCE]))
        shipped = back.encode_text(clip_weights.tokenizer()(PROMPTS))
    expected = trained - clip_weights.BACKGROUND_SHIFT * background
    assert torch.allclose(shipped, expected, atol=1e-2 * trained.abs().max().item())


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"tiny_clip.safetensors is missing"):
        clip_weights.read(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "without a tensor", "no json"])
def test_damaged_weights_ask_to_install_again(tmp_path: Path, damage: str) -> None:
    weights, description = "tiny_clip.safetensors", "tiny_clip.json"
    whole = (clip_weights.FOLDER / weights).read_bytes()
    (tmp_path / weights).write_bytes(whole[:-100] if damage == "truncated" else whole)
    text = "{" if damage == "no json" else (clip_weights.FOLDER / description).read_text()
    (tmp_path / description).write_text(text)
    if damage == "without a tensor":
        save_file({"token_ids": torch.zeros(2, dtype=torch.int32)}, tmp_path / weights)
    with pytest.raises(WeightsError, match=r"damaged .*; install zspl again") as got:
        clip_weights.read(tmp_path)
    assert "\n" not in str(got.value)


def test_contrastive_loss_is_the_mean_of_both_cross_entropies_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(5, 4, generator=generator), dim=1)
    text = torch.nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=1)
    caption = [0, 1, 1, 2, 0]
    logits = (7.0 * image @ text.T).tolist()
    to_text = -sum(
        logits[i][c] - math.log(sum(math.exp(x) for x in logits[i])) for i, c in enumerate(caption)
    )
    to_image = 0.0
    for k in range(3):
        owners = [i for i, c in enumerate(caption) if c == k]
        total = math.log(sum(math.exp(row[k]) for row in logits))
        to_image -= sum(logits[i][k] - total for i in owners) / len(owners)
    loss, _ = pretrain_clip.contrastive_loss(image, text, torch.tensor(caption), torch.tensor(7.0))
    assert loss.item() == pytest.approx(0.5 * (to_text / 5 + to_image / 3), rel=1e-5)


def test_a_killed_pretraining_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    recipe = pretrain_clip.Recipe(
        seed=0, steps=4, batch=8, pictures=32, warmup=2, checkpoint_every=2
    )
    assert pretrain_clip.train(tmp_path / "whole", recipe=recipe, minutes=math.inf)
    assert not pretrain_clip.train(tmp_path / "killed", recipe=recipe, minutes=0.0)
    assert pretrain_clip.train(tmp_path / "killed", recipe=recipe, minutes=math.inf)
    whole, killed = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"]
        for name in ("whole", "killed")
    )
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_picture_of_the_corpus_comes_with_the_words_of_what_is_visible(
    tmp_path: Path,
) -> None:
    bank = corpus.build(tmp_path, count=40)
    images, sentences = bank.draw(16, np.random.default_rng(0))
    assert images.shape == (16, 64, 64, 3)
    vocabulary.check(sentences, known=vocabulary.CORPUS_WORDS)
    assert "a photo of a plain background" in sentences
    again = corpus.build(tmp_path, count=40).draw(16, np.random.default_rng(0))
    assert again[1] == sentences
    assert np.array_equal(again[0], images)
