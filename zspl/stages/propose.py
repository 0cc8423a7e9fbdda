"""propose: cut the images of one shard into class-agnostic segments."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from zspl.io import atomic, workdir
from zspl.io.images import read_image
from zspl.io.layout import Layout
from zspl.io.proposals import ProposalFile, write_proposals
from zspl.observer import Observer, progress
from zspl.proposals import Proposer
from zspl.records import ImageRecord, SegmentProposals
from zspl.sections import build_plugin, plugin_settings
from zspl.settings import Settings
from zspl.stages._shard import Shard, check_shard_number, read_shard, section

PACKAGE = "zspl.proposals"


def run(
    settings: Settings, observer: Observer, *, proposer: str, shard: int
) -> Mapping[str, float]:
    """Write the segment proposals of one shard and return their number and coverage.

    Each image's result is kept until the shard is whole, so that a killed run continues.

    Raises:
        SettingsError: if params.yaml has no such proposer or shard.
        DataError: if an image is missing or unreadable.
        WeightsError: if the proposer's checkpoint cannot be had.
    """
    values = section(settings.propose, proposer, of="propose")
    check_shard_number(settings, shard)
    layout = Layout(settings.paths.out)
    images = read_shard(layout, shard)
    chosen = plugin_settings(PACKAGE, proposer, values).model_dump(mode="json")
    made_under = workdir.fingerprint({"settings": chosen, "images": images.identity})
    work = workdir.open_workdir(layout.work("propose", proposer, str(shard)), made_under=made_under)
    _propose_missing(settings, images, work, proposer=proposer, shard=shard)
    whole = work / "whole.parquet"
    summary = _gather(images, work, whole)
    atomic.publish(whole, layout.proposals(proposer, shard))
    shutil.rmtree(work)
    observer.params({"proposer": proposer, "shard": shard})
    observer.metrics(summary)
    return summary


def _propose_missing(
    settings: Settings, images: Shard, work: Path, *, proposer: str, shard: int
) -> None:
    missing = [r for r in images.records if not _result(work, r).is_file()]
    if not missing:
        return
    plugin: Proposer = build_plugin(PACKAGE, proposer, settings.propose[proposer])
    for record in progress(missing, what=f"propose {proposer} {shard}", total=len(missing)):
        segments = plugin.propose(read_image(record.image_path))
        write_proposals(_result(work, record), [(record.image_id, segments)])


def _gather(images: Shard, work: Path, whole: Path) -> dict[str, float]:
    """Join the images' results in the order of the shard; return what is worth reporting."""
    segments: list[int] = []
    covered: list[float] = []

    def results() -> Iterator[tuple[str, SegmentProposals]]:
        for record in images.records:
            proposals = ProposalFile(_result(work, record)).read(record.image_id)
            segments.append(len(proposals.masks))
            covered.append(float(proposals.masks.any(dim=0).float().mean()))
            yield record.image_id, proposals

    write_proposals(whole, results())
    number = max(len(images.records), 1)
    return {
        "images": float(len(images.records)),
        "segments": float(sum(segments)),
        "segments_per_image": sum(segments) / number,
        "coverage": sum(covered) / number,
    }


def _result(work: Path, record: ImageRecord) -> Path:
    return work / "images" / f"{record.image_id}.parquet"
