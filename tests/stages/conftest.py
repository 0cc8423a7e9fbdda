"""A prepared data folder with eight small images, for the stages that annotate them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.io.layout import Layout
from zspl.io.records import digest, write_records
from zspl.io.splits import write_ids, write_split
from zspl.records import DenseFeatures, ImageRecord, Split, TextEmbeddings
from zspl.settings import Choice, Label, Paths, Prepare, Settings

NAMES = ("red", "green", "blue")
HEIGHT, WIDTH = 24, 32
IDS = tuple(f"image_{k}" for k in range(8))
SHARDS = (IDS[:5], IDS[5:])
LABELED, HOLDOUT, VAL = IDS[1:4], IDS[5:6], IDS[6:]


def drawn(seed):
    """Return a grey picture with two coloured blocks, and its mask."""
    random = np.random.default_rng(seed)
    pixels = np.full((HEIGHT, WIDTH, 3), 90) + random.integers(0, 20, (HEIGHT, WIDTH, 1))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for left in (2, 18):
        color = int(random.integers(1, 4))
        top = int(random.integers(2, 10))
        block = (slice(top, top + 12), slice(left, left + 12))
        mask[block] = color
        pixels[block] = 0
        pixels[block][..., color - 1] = 230
    return Image.fromarray(pixels.astype(np.uint8)), mask


class ColorEncoder:
    """Embeds a cell by its mean colour: a CLIP that understands three colours."""

    calls = 0
    sees_segments = False

    def dense_batch(self, images, proposals=None):  # noqa: ARG002 - of the protocol
        return [self.dense(image) for image in images]

    def dense(self, image):
        type(self).calls += 1
        cells = np.array(image.convert("RGB").resize((8, 6), Image.Resampling.BOX)) / 255
        grey = cells.min(axis=2, keepdims=True)
        vectors = np.concatenate([cells - grey, grey], axis=2)
        grid = torch.from_numpy(vectors).permute(2, 0, 1).float()
        return DenseFeatures(grid=grid, image_size=(image.height, image.width))

    def text(self, names):
        return TextEmbeddings(vectors=torch.eye(3, 4), class_names=tuple(names))


def settings_below(out):
    labeler = Choice(name="region_pool", score="cosine", threshold="calibrated")
    pixel = Choice(name="pixel_argmax", score="cosine", threshold=0.7)
    ready = Choice(name="from_folder", folder=str(out / "ready"))
    variants = {
        "region": {"proposals": "superpixels", "features": "clip", "labeler": labeler},
        "pixel": {"proposals": "none", "features": "clip", "labeler": pixel},
        "ready": {"proposals": "none", "features": "none", "labeler": ready},
    }
    prepare = Prepare(
        dataset=Choice(name="toyworld"),
        splits=("few",),
        shards=(0, 1),
        holdout=0.2,
        annotate_val=True,
    )
    return Settings.model_construct(
        benchmark="test",
        seed=0,
        threads=1,
        paths=Paths(source=out, out=out, code=Path()),
        prepare=prepare,
        propose={"superpixels": {"segments": 40}},
        embed={"clip": {"model": "tiny"}},
        embed_segments={},
        label=Label.model_validate({"calibration_split": "few", "variants": variants}),
    )


@pytest.fixture
def prepared(tmp_path):
    """Write the files of the stage prepare, and return the settings that go with them."""
    layout = Layout(tmp_path)
    records = []
    for seed, name in enumerate(IDS):
        image, mask = drawn(seed)
        image_path, label_path = tmp_path / f"{name}.png", tmp_path / "masks" / f"{name}.png"
        image.save(image_path)
        write_label(label_path, mask)
        found = digest(image_path, label_path)
        records.append(
            ImageRecord(image_id=name, image_path=image_path, label_path=label_path, digest=found)
        )
    write_records(layout.records, records)
    ClassTable.plain(("background", *NAMES), prompts=NAMES).write(layout.classes)
    split = Split(name="few", labeled=LABELED, holdout=HOLDOUT, unlabeled=IDS[:1], val=VAL)
    write_split(layout.split("few"), split)
    for index, ids in enumerate(SHARDS):
        write_ids(layout.shard(index), ids)
    return settings_below(tmp_path)


@pytest.fixture
def colors(monkeypatch):
    """Let the encoder `clip` be one that understands three colours, without weights."""
    from zspl.features import clip

    ColorEncoder.calls = 0
    monkeypatch.setattr(clip, "build", lambda _: ColorEncoder())
    return ColorEncoder
