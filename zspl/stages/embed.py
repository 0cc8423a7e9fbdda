"""embed: dense image features and class-text embeddings of one shard."""

import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from zspl.features import Encoder
from zspl.io import atomic, workdir
from zspl.io.classes import ClassTable
from zspl.io.features import FeatureFile, write_features
from zspl.io.images import read_image
from zspl.io.layout import Layout
from zspl.observer import Observer, progress
from zspl.records import ImageRecord, TextEmbeddings
from zspl.settings import Settings, build_plugin, plugin_settings
from zspl.stages._shard import check_shard_number, read_shard, section

PACKAGE = "zspl.features"


def run(settings: Settings, observer: Observer, *, encoder: str, shard: int) -> Mapping[str, float]:
    """Write the features of one shard and return how many images and what grid.

    Each image's result is kept until the shard is whole, so that a killed run continues.

    Raises:
        SettingsError: if params.yaml has no such encoder or shard.
        DataError: if an image is missing or unreadable.
        WeightsError: if the weights cannot be had, or the model does not know a class name.
    """
    values = section(settings.embed, encoder, of="embed")
    check_shard_number(settings, shard)
    layout = Layout(settings.paths.out)
    images = read_shard(layout, shard)
    prompts = ClassTable.read(layout.classes).texts
    chosen = plugin_settings(PACKAGE, encoder, values).model_dump(mode="json")
    made_under = workdir.fingerprint(
        {"settings": chosen, "images": images.identity, "prompts": prompts}
    )
    work = workdir.open_workdir(layout.work("embed", encoder, str(shard)), made_under=made_under)
    lazy = _Lazy(encoder, values)
    text = _text(lazy, prompts, work)
    missing = [r for r in images.records if not _result(work, r).is_file()]
    for record in progress(missing, what=f"embed {encoder} {shard}", total=len(missing)):
        dense = lazy.encoder.dense(read_image(record.image_path))
        write_features(_result(work, record), {record.image_id: dense}, text)
    whole = work / "whole.safetensors"
    results = ((r.image_id, FeatureFile(_result(work, r))) for r in images.records)
    write_features(whole, {name: file.read(name) for name, file in results}, text)
    atomic.publish(whole, layout.features(encoder, shard))
    shutil.rmtree(work)
    summary = {"images": float(len(images.records)), "channels": float(text.vectors.shape[1])}
    observer.params({"encoder": encoder, "shard": shard})
    observer.metrics(summary)
    return summary


class _Lazy:
    """Loads the encoder at its first use; a shard that is already whole needs none."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self._name, self._values = name, values

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder with its weights."""
        built: Encoder = build_plugin(PACKAGE, self._name, self._values)
        return built


def _text(lazy: _Lazy, prompts: tuple[str, ...], work: Path) -> TextEmbeddings:
    path = work / "text.safetensors"
    if not path.is_file():
        write_features(path, {}, lazy.encoder.text(prompts))
    return FeatureFile(path).text


def _result(work: Path, record: ImageRecord) -> Path:
    return work / "images" / f"{record.image_id}.safetensors"
