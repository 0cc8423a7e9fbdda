"""Fakes for `zspl annotate`: models that look at colours, so that results are known."""

import numpy as np
import pytest
import torch
from PIL import Image

from zspl import cli
from zspl.annotation import choices
from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings


class FakeEncoder:
    """Red, green and blue are three directions, and texts point along them in turn."""

    sees_segments = False
    passes: list = []  # noqa: RUF012 - the fixture empties it

    def dense(self, image, proposals=None):  # noqa: ARG002 - of the protocol
        return self.dense_batch([image])[0]

    def dense_batch(self, images, proposals=None):  # noqa: ARG002 - of the protocol
        self.passes.append(len(images))
        for image in images:
            if image.size == (13, 13):
                raise MemoryError("13 x 13 is too much")
        return [
            DenseFeatures(
                grid=torch.from_numpy(np.array(image)).float().movedim(2, 0) / 255 + 1e-3,
                image_size=(image.height, image.width),
            )
            for image in images
        ]

    def text(self, names):
        return TextEmbeddings(vectors=torch.eye(3)[: len(names)], class_names=tuple(names))


class FakeProposer:
    """Cuts every photo into a left and a right half."""

    def propose(self, image):
        masks = torch.zeros(2, image.height, image.width, dtype=torch.bool)
        masks[0, :, : image.width // 2] = True
        masks[1] = ~masks[0]
        return SegmentProposals(
            masks=masks, predicted_iou=torch.ones(2), stability_score=torch.ones(2)
        )

    def propose_batch(self, images):
        return [self.propose(image) for image in images]


@pytest.fixture
def fakes(monkeypatch):
    """Put the fakes in place of SAM and CLIP; returns the sizes of the encoder's passes."""
    real = choices.build_plugin
    made = {"zspl.proposals": FakeProposer, "zspl.features": FakeEncoder}

    def build(package, name, values):
        return made[package]() if package in made else real(package, name, values)

    monkeypatch.setattr(choices, "build_plugin", build)
    monkeypatch.setattr(FakeEncoder, "passes", [])
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    return FakeEncoder


def _red_and_green(size=(8, 6)):
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2, 0], pixels[:, size[0] // 2 :, 1] = 255, 255
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path, fakes):
    """A folder of two photos, a.png and sub/b.jpg, left half red, right half green."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    _red_and_green().save(folder / "a.png")
    _red_and_green((16, 16)).save(folder / "sub" / "b.jpg", quality=95, subsampling=0)
    return folder


@pytest.fixture
def annotate(photos):
    """Return a function that runs the command on `photos`: `code, out = annotate("--batch", 2)`."""
    out = photos.parent / "out"

    def run(*more, classes="cat,dog", out=out):
        where = ["--images", str(photos), "--out", str(out), "--classes", classes]
        return cli.main(["annotate", *where, *map(str, more)]), out

    return run


@pytest.fixture
def red_and_green():
    """Return a function that makes photos whose left half is red and whose right half green."""
    return _red_and_green


@pytest.fixture
def files():
    """Return a function that gives the bytes of all files below a folder."""

    def read(folder):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    return read
