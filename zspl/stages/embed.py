"""embed: dense image features and class-text embeddings of one shard."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from zspl.errors import DataError, SettingsError
from zspl.features import Encoder
from zspl.io import atomic, devices, workdir
from zspl.io.classes import ClassTable
from zspl.io.features import FeatureFile, write_features
from zspl.io.images import read_image
from zspl.io.layout import Layout
from zspl.io.proposals import ProposalFile
from zspl.observer import Observer, progress
from zspl.records import DenseFeatures, ImageRecord, SegmentProposals, TextEmbeddings
from zspl.sections import build_plugin, plugin_settings
from zspl.settings import Settings, features_name
from zspl.stages._shard import Shard, check_shard_number, read_shard, section

PACKAGE = "zspl.features"

_PER_PASS_OF_A_GPU = 8


def run(
    settings: Settings,
    observer: Observer,
    *,
    encoder: str,
    shard: int,
    proposals: str | None = None,
) -> Mapping[str, float]:
    """Write the features of one shard and return how many images and channels.

    Each image's result is kept until the shard is whole, so that a killed run continues. A GPU
    gets several images per pass of the network: that moves numbers by float noise only.

    Args:
        settings: All of params.yaml.
        observer: Gets the numbers of this instance.
        encoder: A key of `embed`, or with `proposals` one of `embed_segments`.
        shard: A member of `prepare.shards`.
        proposals: The proposer whose segments the encoder looks at.

    Raises:
        SettingsError: if params.yaml has no such encoder, proposer or shard, or the encoder stands
            in the wrong one of its two sections.
        DataError: if an image is missing or unreadable, or its proposals are.
        WeightsError: if the weights cannot be had, or the model does not know a class name.
    """
    chosen = _Chosen(settings, encoder, proposals)
    check_shard_number(settings, shard)
    layout = Layout(settings.paths.out)
    images = read_shard(layout, shard)
    looked_at = [] if proposals is None else [layout.proposals(proposals, shard)]
    segments = ProposalFile(looked_at[0]) if looked_at else None
    prompts = ClassTable.read(layout.classes).texts
    identity = {"settings": chosen.identity, "images": images.identity, "prompts": prompts}
    made_under = workdir.fingerprint(identity, looked_at)
    work = workdir.open_workdir(
        layout.work("embed", chosen.name, str(shard)), made_under=made_under
    )
    text = _text(chosen, prompts, work)
    missing = [r for r in images.records if not _result(work, r).is_file()]
    bar = progress(missing, what=f"embed {chosen.name} {shard}", total=len(missing))
    for record, dense in _embedded(chosen, bar, segments):
        write_features(_result(work, record), {record.image_id: dense}, text)
    whole = work / "whole.safetensors"
    write_features(whole, _gathered(work, images), text)
    atomic.publish(whole, layout.features(chosen.name, shard))
    shutil.rmtree(work)
    summary = {"images": float(len(images.records)), "channels": float(text.vectors.shape[1])}
    observer.params({"encoder": chosen.name, "shard": shard})
    observer.metrics(summary)
    return summary


class _Chosen:
    """The encoder and its section; loaded at its first use, since a whole shard needs none."""

    def __init__(self, settings: Settings, encoder: str, proposals: str | None) -> None:
        plain = proposals is None
        self._section = "embed" if plain else "embed_segments"
        self._other = "embed_segments" if plain else "embed"
        self._encoder = encoder
        self._values = section(getattr(settings, self._section), encoder, of=self._section)
        if proposals is not None:
            section(settings.propose, proposals, of="propose")
        self.name = features_name(encoder, proposals)
        self.looks = not plain

    @property
    def identity(self) -> dict[str, Any]:
        """Every setting of the encoder, for a fingerprint."""
        return plugin_settings(PACKAGE, self._encoder, self._values).model_dump(mode="json")

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder with its weights.

        Raises:
            SettingsError: if it needs segments and would get none, or the other way round.
        """
        built: Encoder = build_plugin(PACKAGE, self._encoder, self._values)
        if built.sees_segments != self.looks:
            does = "looks at segments" if built.sees_segments else "looks at no segments"
            raise SettingsError(
                f"params.yaml: {self._section}.{self._encoder}: this encoder {does}; "
                f"move it to {self._other}"
            )
        return built


def _text(chosen: _Chosen, prompts: tuple[str, ...], work: Path) -> TextEmbeddings:
    path = work / "text.safetensors"
    if not path.is_file():
        write_features(path, {}, chosen.encoder.text(prompts))
    return FeatureFile(path).text


def _embedded(
    chosen: _Chosen, records: Iterator[ImageRecord], proposals: ProposalFile | None
) -> Iterator[tuple[ImageRecord, DenseFeatures]]:
    """Yield each image's features, a few images per pass."""
    per_pass = 1 if devices.chosen().type == "cpu" else _PER_PASS_OF_A_GPU
    waiting: list[ImageRecord] = []
    for record in records:
        waiting.append(record)
        if len(waiting) == per_pass:
            yield from _pass(chosen.encoder, waiting, proposals)
            waiting = []
    if waiting:
        yield from _pass(chosen.encoder, waiting, proposals)


def _pass(
    encoder: Encoder, records: Sequence[ImageRecord], proposals: ProposalFile | None
) -> Iterator[tuple[ImageRecord, DenseFeatures]]:
    images = [read_image(record.image_path) for record in records]
    segments = None
    if proposals is not None:
        segments = [
            _segments(proposals, record, image)
            for record, image in zip(records, images, strict=True)
        ]
    yield from zip(records, encoder.dense_batch(images, segments), strict=True)


def _segments(proposals: ProposalFile, record: ImageRecord, image: Image.Image) -> SegmentProposals:
    found = proposals.read(record.image_id)
    height, width = found.masks.shape[1:]
    if (width, height) != image.size:
        raise DataError(
            f"{record.image_path}: is {image.width}x{image.height} but its proposals were made for "
            f"{width}x{height}; run the stage propose again"
        )
    return found


def _gathered(work: Path, images: Shard) -> dict[str, DenseFeatures]:
    names = [record.image_id for record in images.records]
    files = (FeatureFile(_result(work, record)) for record in images.records)
    return {name: file.read(name) for name, file in zip(names, files, strict=True)}


def _result(work: Path, record: ImageRecord) -> Path:
    return work / "images" / f"{record.image_id}.safetensors"
