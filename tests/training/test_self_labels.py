import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from zspl.data.loading import normalise
from zspl.inference import predict
from zspl.io.images import read_label, write_label
from zspl.methods import SelfLabels
from zspl.models.network import SegmentationNetwork
from zspl.records import ImageRecord
from zspl.training.self_labels import judge, most_stable, stability, write_labels

ONCE = SelfLabels(share=1.0, scales=(1.0,), flip=False)


def reference_stability(predictions, classes):
    """Average over the earlier predictions the mIoU against the last, class by class."""
    *earlier, last = predictions
    scores = []
    for prediction in earlier:
        ious = []
        for c in range(classes):
            mine, theirs = prediction == c, last == c
            union = (mine | theirs).sum()
            if union:
                ious.append((mine & theirs).sum() / union)
        scores.append(np.mean(ious))
    return np.mean(scores)


def test_stability_is_the_mean_miou_of_the_earlier_predictions_against_the_last():
    draw = np.random.default_rng(0)
    for _ in range(20):
        predictions = [draw.integers(0, 5, (9, 7)) * draw.integers(0, 2) for _ in range(3)]
        ours = stability([torch.from_numpy(p.astype(np.uint8)) for p in predictions], num_classes=5)
        assert ours == pytest.approx(reference_stability(predictions, 5), rel=1e-12)


def test_predictions_that_never_change_are_fully_stable():
    prediction = torch.full((4, 5), 2, dtype=torch.uint8)
    assert stability([prediction] * 3, num_classes=4) == 1.0
    with pytest.raises(ValueError, match="2 or more predictions, got 1"):
        stability([prediction], num_classes=4)


def test_of_an_odd_number_the_smaller_half_is_stable_and_ties_keep_their_order():
    stabilities = {"a": 0.2, "b": 0.9, "c": 0.5, "d": 0.9, "e": 0.1}
    assert most_stable(stabilities, 0.5) == ("b", "d")
    assert most_stable(stabilities, 1.0) == ("b", "d", "c", "a", "e")
    assert most_stable({"a": 0.2}, 0.5) == ("a",)


class Leaning(torch.nn.Module):
    """A backbone whose logits depend on colour, place and size of the photo."""

    def __init__(self, shift):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(shift))

    def forward(self, images):
        slope = torch.linspace(-1, 1, images.shape[-1]) * images.shape[-1] / 20
        return [torch.cat([images[:, :1] + slope, images[:, 1:2], self.shift + images[:, 2:]], 1)]


class Passing(torch.nn.Module):
    """A decoder that returns the first feature map."""

    def forward(self, features, size):  # noqa: ARG002 - as the network calls it
        return features[0]


def leaning(shift):
    return SegmentationNetwork(Leaning(shift), Passing()).eval()


@pytest.fixture
def photos(tmp_path):
    draw, records = np.random.default_rng(0), []
    for name in "ab":
        pixels = draw.integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        records.append(
            ImageRecord(
                image_id=name, image_path=tmp_path / f"{name}.png", label_path=None, digest=""
            )
        )
    return records


def test_a_label_comes_from_the_probabilities_summed_over_scales_and_mirror_images(
    photos, tmp_path
):
    model = leaning(0.5)
    how = SelfLabels(share=1.0, scales=(0.5, 1.0, 1.5), flip=True)
    write_labels(model, photos, how, folder=tmp_path / "labels")
    for record in photos:
        images = normalise(Image.open(record.image_path))[None]
        total = torch.zeros(1, 3, 20, 30)
        for height, width in ((10, 15), (20, 30), (30, 45)):
            x = F.interpolate(images, (height, width), mode="bilinear", align_corners=True)
            for view, back in ((x, lambda y: y), (x.flip(3), lambda y: y.flip(3))):
                p = back(model(view).softmax(1))
                total += F.interpolate(p, (20, 30), mode="bilinear", align_corners=True)
        ours = read_label(tmp_path / "labels" / f"{record.image_id}.png")
        np.testing.assert_array_equal(ours, total[0].argmax(0).numpy())
        assert len(np.unique(ours)) > 1


def test_images_are_judged_once_and_read_from_the_file_afterwards(photos, tmp_path):
    models = [leaning(-9.0), leaning(0.0), leaning(0.1)]
    path = tmp_path / "stability.json"
    found = judge(models, photos, num_classes=3, path=path)
    for record in photos:
        image = Image.open(record.image_path)
        predictions = [predict(model, image).numpy() for model in models]
        assert found[record.image_id] == pytest.approx(reference_stability(predictions, 3))
    assert judge([], photos, num_classes=3, path=path) == found


def test_an_image_that_has_a_label_keeps_it(photos, tmp_path):
    folder = tmp_path / "labels"
    write_label(folder / "a.png", np.zeros((20, 30), np.uint8))
    write_labels(leaning(9.0), photos, ONCE, folder=folder)
    assert read_label(folder / "a.png").max() == 0
    expected = predict(leaning(9.0), Image.open(photos[1].image_path))
    np.testing.assert_array_equal(read_label(folder / "b.png"), expected.numpy())
