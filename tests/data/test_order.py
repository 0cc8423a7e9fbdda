from collections import Counter

import pytest

from zspl.data.order import IdStream, Share
from zspl.errors import SettingsError

IDS = tuple("abcdefghij")


def epoch(stream, number):
    steps = range(number * len(stream), (number + 1) * len(stream))
    return [image_id for step in steps for image_id in stream.at(step)]


def test_an_epoch_visits_each_id_at_most_once_and_drops_the_last_part_of_a_batch():
    stream = IdStream(IDS, 3, seed=0, purpose="x")

    seen = Counter(epoch(stream, 0))

    assert len(stream) == 3
    assert len(seen) == 9
    assert max(seen.values()) == 1


def test_epochs_seeds_and_purposes_have_their_own_order():
    stream = IdStream(IDS, 5, seed=0, purpose="x")
    others = [
        epoch(stream, 1),
        epoch(IdStream(IDS, 5, seed=1, purpose="x"), 0),
        epoch(IdStream(IDS, 5, seed=0, purpose="y"), 0),
    ]
    assert epoch(stream, 0) not in others
    assert all(sorted(other) == sorted(IDS) for other in others)


def test_a_step_does_not_depend_on_the_steps_before():
    walked = IdStream(IDS, 4, seed=0, purpose="x")
    on_the_way = [walked.at(step) for step in range(9)]
    assert IdStream(IDS, 4, seed=0, purpose="x").at(7) == on_the_way[7]


@pytest.mark.parametrize(("count", "batch"), [(1, 4), (3, 8), (8, 8)])
def test_a_list_shorter_than_a_batch_repeats_until_it_fills_one(count, batch):
    stream = IdStream(IDS[:count], batch, seed=0, purpose="x")
    seen = Counter(stream.at(0))
    assert sum(seen.values()) == batch
    assert set(seen) == set(IDS[:count])


@pytest.mark.parametrize(
    ("share", "batch"), [(Share(), 1), (Share(micro_batches=4), 4), (Share(processes=8), 8)]
)
def test_a_part_of_one_crop_cannot_be_pasted_within_the_batch(share, batch):
    with pytest.raises(SettingsError, match="has no other to paste") as caught:
        share.check_pairs(batch)
    assert "\n" not in str(caught.value)
    share.check_pairs(2 * batch)
