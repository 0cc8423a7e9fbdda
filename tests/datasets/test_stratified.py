import numpy as np
import pytest

from zspl.datasets._stratified import draw, drawn_number, stratified_order
from zspl.errors import SettingsError
from zspl.seeding import generator


def images(number, frequencies, seed=0):
    random = np.random.default_rng(seed)
    return random.random((number, len(frequencies))) < frequencies


def plain_order(shown, rng):
    """Search, at every step, the class that is furthest behind and its first shuffled image."""
    classes = [set(np.flatnonzero(column).tolist()) for column in shown.T]
    classes.append({k for k in range(len(shown)) if not shown[k].any()})
    classes = sorted((c for c in classes if c), key=len)
    shuffled = rng.permutation(len(shown)).tolist()
    taken = []
    while len(taken) < len(shown):
        behind = [(len(c & set(taken)) / len(c), n) for n, c in enumerate(classes)]
        open_ones = [b for b in behind if classes[b[1]] - set(taken)]
        chosen = classes[min(open_ones)[1]]
        taken.append(next(k for k in shuffled if k in chosen and k not in taken))
    return taken


@pytest.mark.parametrize("seed", range(4))
def test_the_order_is_that_of_a_plain_search(seed):
    shown = images(60, [0.7, 0.3, 0.1, 0.02, 0.0], seed)
    ours = list(stratified_order(shown, generator(seed, "test")))
    assert ours == plain_order(shown, generator(seed, "test"))
    assert sorted(ours) == list(range(60))


def test_the_head_of_the_order_shows_every_class_and_later_heads_their_shares():
    shown = images(1000, [0.5, 0.2, 0.05, 0.004, 0.1, 0.01])
    order = list(stratified_order(shown, generator(0, "test")))
    assert shown[order[:7]].any(axis=0).all()
    for number in (100, 200, 500):
        shares = shown[order[:number]].sum(axis=0) / shown.sum(axis=0)
        # The most frequent classes come along with the others, so theirs may lie above.
        assert (shares >= number / 1000 - 0.03).all()


def test_a_smaller_draw_is_the_head_of_a_larger_one():
    shown = images(50, [0.5, 0.2])
    ids = tuple(f"{k:02d}" for k in range(50))
    small, large = (draw(ids, shown, number=n, rng=generator(3, "x")) for n in (8, 20))
    assert large[:8] == small
    assert draw(ids, shown, number=8, rng=generator(4, "x")) != small


@pytest.mark.parametrize(
    "name", ["drawn_", "drawn_0", "drawn_11", "drawn_x", "drawn_07", "drawn_\u0663"]
)
def test_an_impossible_draw_is_one_line(name):
    with pytest.raises(SettingsError, match=r"write drawn_<n> with n from 1 to 10"):
        drawn_number(name, limit=10)
