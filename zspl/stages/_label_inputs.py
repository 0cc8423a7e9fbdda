"""What the stage label reads for one image: proposals, features, texts and the size."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from zspl.errors import DataError, SettingsError
from zspl.io.classes import ClassTable
from zspl.io.features import FeatureFile
from zspl.io.images import read_image
from zspl.io.layout import Layout
from zspl.io.proposals import ProposalFile
from zspl.labeling import Labeler, LabelInputs
from zspl.records import DenseFeatures, ImageRecord, SegmentProposals
from zspl.settings import LabelVariant

_NONE = "none"
_RUN_FIRST = {"proposals": "propose", "features": "embed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """An image and the shard that its proposals and features are in."""

    record: ImageRecord
    shard: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    proposals: ProposalFile | None
    features: FeatureFile | None


class InputReader:
    """Reads the inputs of one variant, shard after shard.

    Args:
        layout: Where the artifacts lie.
        variant: Names the proposals and features.
        table: The classes; the features must have been made for the same prompts.
    """

    def __init__(self, layout: Layout, variant: LabelVariant, table: ClassTable) -> None:
        self._layout = layout
        self._variant = variant
        self._table = table

    def files(self, shards: Iterable[int]) -> list[Path]:
        """Return the proposal and feature files of these shards.

        Raises:
            DataError: if one is missing.
        """
        found: list[Path] = []
        for shard in shards:
            for path, stage in (
                (self._proposals(shard), "propose"),
                (self._features(shard), "embed"),
            ):
                if path is None:
                    continue
                if not path.is_file():
                    raise DataError(f"{path}: no such file; run the stage {stage} first")
                found.append(path)
        return found

    def read(self, images: Iterable[Placed]) -> Iterator[tuple[ImageRecord, LabelInputs]]:
        """Yield each image with its inputs; images of a shard must lie together.

        Raises:
            DataError: if a file is damaged or was made for other images, sizes or classes.
        """
        for shard, members in groupby(images, key=lambda placed: placed.shard):
            opened = self._open(shard)
            for placed in members:
                yield placed.record, self._inputs(placed.record, opened)

    def _open(self, shard: int) -> _Opened:
        proposals, features = self._proposals(shard), self._features(shard)
        opened = _Opened(
            proposals=None if proposals is None else ProposalFile(proposals),
            features=None if features is None else FeatureFile(features),
        )
        if opened.features is not None:
            made_for = opened.features.text.class_names
            if made_for != self._table.texts:
                raise DataError(
                    f"{features}: was made for the classes {', '.join(made_for)}, now they are "
                    f"{', '.join(self._table.texts)}; run the stage embed again"
                )
        return opened

    def _inputs(self, record: ImageRecord, opened: _Opened) -> LabelInputs:
        name = record.image_id
        proposals = None if opened.proposals is None else opened.proposals.read(name)
        features = None if opened.features is None else opened.features.read(name)
        sizes = {
            (masks.shape[1], masks.shape[2]) for masks in ([proposals.masks] if proposals else [])
        } | ({features.image_size} if features else set())
        if len(sizes) > 1:
            raise DataError(
                f"image {name!r}: proposals and features were made for the sizes "
                f"{' and '.join(f'{w}x{h}' for h, w in sorted(sizes))}; run propose and embed again"
            )
        if proposals and features:
            _check_number(name, proposals, features)
        if not sizes:
            image = read_image(record.image_path)
            sizes = {(image.height, image.width)}
        return LabelInputs(
            image_id=name,
            size=sizes.pop(),
            table=self._table,
            proposals=proposals,
            features=features,
            text=None if opened.features is None else opened.features.text,
        )

    def _proposals(self, shard: int) -> Path | None:
        name = self._variant.proposals
        return None if name == _NONE else self._layout.proposals(name, shard)

    def _features(self, shard: int) -> Path | None:
        name = self._variant.features
        return None if name == _NONE else self._layout.features(name, shard)


def _check_number(name: str, proposals: SegmentProposals, features: DenseFeatures) -> None:
    looked_at, now = features.segments, len(proposals.masks)
    if looked_at is not None and len(looked_at) != now:
        raise DataError(
            f"image {name!r}: features were made for {len(looked_at)} segments, now there are "
            f"{now}; run the stage embed again"
        )


def check_needs(name: str, variant: LabelVariant, labeler: Labeler) -> None:
    """Check that a variant names exactly what its labeler reads.

    Raises:
        SettingsError: if it lacks something, or would wait for something unused.
    """
    for what, stage in _RUN_FIRST.items():
        named = getattr(variant, what)
        if (what in labeler.needs) == (named == _NONE):
            wanted = "needs" if what in labeler.needs else "reads no"
            remedy = f"name a key of {stage}" if named == _NONE else "set it to none"
            raise SettingsError(
                f"label.variants.{name}.{what} is {named}, but labeler {variant.labeler.name} "
                f"{wanted} {what}; {remedy}"
            )
