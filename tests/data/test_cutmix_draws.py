"""CutMix boxes are the published law on our generator's numbers, drawn in the published order."""

import math

import numpy as np
import pytest

from zspl.data.cutmix import draw_box


def written_out(size, rng):
    """No box half of the time; one area; then ratio and corner until the box lies inside."""
    box = np.zeros((size, size), bool)
    if rng.random() > 0.5:
        return box
    area = rng.uniform(0.02, 0.4) * size * size
    while True:
        ratio = rng.uniform(0.3, 1 / 0.3)
        width, height = int(math.sqrt(area / ratio)), int(math.sqrt(area * ratio))
        x, y = rng.integers(0, size), rng.integers(0, size)
        if x + width <= size and y + height <= size:
            for row in range(y, y + height):
                for column in range(x, x + width):
                    box[row, column] = True
            return box


@pytest.mark.parametrize("size", [16, 33, 321])
def test_a_box_is_the_one_of_the_same_random_numbers(size):
    ours, reference = np.random.default_rng(size), np.random.default_rng(size)
    filled = 0
    for _ in range(20):
        box = draw_box(size, ours).numpy()
        np.testing.assert_array_equal(box, written_out(size, reference))
        filled += box.any()
    assert 3 <= filled <= 17
    assert ours.random() == reference.random()
