"""The rendered world: deterministic, disjoint corpora, honest labels."""

import numpy as np
import pytest

from zspl.toyworld import scene
from zspl.toyworld.corpus import CLIP_CORPUS
from zspl.toyworld.noise import bank
from zspl.toyworld.patterns import PATTERNS
from zspl.toyworld.textures import PALETTES, paint


def test_the_same_seed_gives_the_same_bytes_in_any_call_order() -> None:
    forward = [scene.render(seed, spec=scene.BENCHMARK) for seed in range(6)]
    bank.cache_clear()
    backward = [scene.render(seed, spec=scene.BENCHMARK) for seed in reversed(range(6))]
    for first, second in zip(forward, reversed(backward), strict=True):
        assert first.image.tobytes() == second.image.tobytes()
        assert first.label.tobytes() == second.label.tobytes()
        assert first.instances.tobytes() == second.instances.tobytes()
        assert first.class_ids == second.class_ids


def test_different_seeds_give_different_pictures() -> None:
    images = {scene.render(seed, spec=scene.BENCHMARK).image.tobytes() for seed in range(20)}
    assert len(images) == 20


def test_pretraining_shares_no_seed_and_no_noise_with_the_benchmark() -> None:
    for spec in (scene.PRETRAIN, CLIP_CORPUS):
        assert not set(scene.BENCHMARK.seeds) & set(spec.seeds[:200_000])
        assert spec.seeds.start >= scene.BENCHMARK.seeds.stop
        assert spec.noise_seed != scene.BENCHMARK.noise_seed
        assert spec.shapes != scene.BENCHMARK.shapes


@pytest.mark.parametrize(
    ("seed", "spec"),
    [
        (scene.PRETRAIN_SEEDS[0], scene.BENCHMARK),
        (0, scene.PRETRAIN),
        (-1, scene.BENCHMARK),
    ],
)
def test_a_seed_of_another_corpus_is_refused(seed: int, spec: scene.SceneSpec) -> None:
    with pytest.raises(ValueError, match=f"got {seed}"):
        scene.render(seed, spec=spec)


def test_every_class_occurs_and_no_other_value_is_in_the_label() -> None:
    seen: set[int] = set()
    for seed in range(60):
        seen |= set(np.unique(scene.render(seed, spec=scene.BENCHMARK).label).tolist())
    assert seen == set(range(len(scene.BENCHMARK_CLASSES) + 1))


def test_the_label_is_the_class_of_the_instance() -> None:
    for seed in range(20):
        made = scene.render(seed, spec=scene.BENCHMARK)
        for number in np.unique(made.instances):
            expected = 0 if number == 0 else made.class_ids[number - 1]
            assert set(made.label[made.instances == number].tolist()) == {expected}


def test_shapes_types_and_object_sizes_are_as_promised() -> None:
    for seed in range(20):
        made = scene.render(seed, spec=scene.BENCHMARK)
        assert made.image.shape == (96, 96, 3)
        assert made.label.shape == made.instances.shape == (96, 96)
        assert made.image.dtype == made.label.dtype == made.instances.dtype == np.uint8
        assert 1 <= len(made.class_ids) <= 4


def test_most_objects_touch_no_other() -> None:
    touching = total = 0
    for seed in range(40):
        instances = scene.render(seed, spec=scene.BENCHMARK).instances.astype(int)
        pairs = np.concatenate(
            [
                np.stack([instances[1:].ravel(), instances[:-1].ravel()], 1),
                np.stack([instances[:, 1:].ravel(), instances[:, :-1].ravel()], 1),
            ]
        )
        meet = pairs[(pairs[:, 0] != pairs[:, 1]) & (pairs > 0).all(1)]
        touching += len(np.unique(meet))
        total += len(np.unique(instances)) - 1
    assert 0.05 < touching / total < 0.4


def test_the_background_only_layout_has_no_object() -> None:
    empty = scene.SceneSpec(**{**vars(scene.PRETRAIN), "layouts": (("empty", 1.0),)})
    made = scene.render(scene.PRETRAIN_SEEDS[5], spec=empty)
    assert made.class_ids == ()
    assert not made.label.any()


@pytest.mark.parametrize("name", PATTERNS)
def test_every_texture_paints_contrast_within_the_colour_range(name: str) -> None:
    painted = paint(
        name,
        (48, 64),
        np.random.default_rng(3),
        variation=scene.BENCHMARK.variation,
        noise=bank(1),
    )
    assert painted.shape == (48, 64, 3)
    assert painted.dtype == np.float32
    assert painted.min() >= -0.01
    assert painted.max() <= 1.5
    assert painted.std(axis=(0, 1)).max() > 0.02


def test_every_texture_has_a_palette() -> None:
    assert set(PALETTES) == set(PATTERNS)


def test_an_unknown_texture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"zebra.*got 'unicorn'"):
        paint(
            "unicorn",
            (8, 8),
            np.random.default_rng(0),
            variation=scene.BENCHMARK.variation,
            noise=bank(1),
        )


def test_captions_name_every_visible_class_once() -> None:
    rng = np.random.default_rng(0)
    assert scene.captions((), rng) == "a photo of a plain background"
    assert scene.captions(("zebra",), rng) == "a photo of a zebra"
    told = {scene.captions(("zebra", "brick"), rng) for _ in range(20)}
    assert told == {"a photo of a zebra and a brick", "a photo of a brick and a zebra"}
