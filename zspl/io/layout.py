"""Where each artifact lies below `paths.out`; the only place that spells these paths."""

from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cell:
    """One training: `labels` is the pseudo-label variant, or None for a method that reads none."""

    method: str
    labels: str | None
    model: str
    split: str
    seed: int

    @property
    def name(self) -> str:
        """The method's row in a table: `enhanced-sam_gem`, or `unimatch`."""
        return self.method if self.labels is None else f"{self.method}-{self.labels}"

    @property
    def path(self) -> Path:
        """The cell's own part of a path."""
        return Path(self.name) / self.model / self.split / f"seed-{self.seed}"

    @property
    def instance(self) -> dict[str, str]:
        """What names it to the stages `train` and `evaluate`."""
        return {key: str(value) for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Layout:
    """Artifact paths below one folder."""

    out: Path

    @property
    def data(self) -> Path:
        """The folder `prepare` writes."""
        return self.out / "data"

    @property
    def records(self) -> Path:
        """One ImageRecord per line, sorted by id."""
        return self.data / "records.jsonl"

    @property
    def classes(self) -> Path:
        """Class names, prompt names and the map from mask values to class ids."""
        return self.data / "classes.json"

    def split(self, name: str) -> Path:
        """The folder with labeled.txt, holdout.txt, unlabeled.txt and val.txt."""
        return self.data / "splits" / name

    def shard(self, index: int) -> Path:
        """The ids of one shard, one per line."""
        return self.data / "shards" / f"{index}.txt"

    def proposals(self, proposer: str, shard: int) -> Path:
        """One Parquet file of segment proposals."""
        return self.out / "proposals" / proposer / f"{shard}.parquet"

    def features(self, name: str, shard: int) -> Path:
        """One safetensors file of features and text embeddings; `settings.features_name` names."""
        return self.out / "features" / name / f"{shard}.safetensors"

    def labels(self, variant: str) -> Path:
        """The folder of one pseudo-label variant."""
        return self.out / "labels" / variant

    def cell(self, cell: Cell) -> Path:
        """The folder of one training."""
        return self.out / "cells" / cell.path

    def cell_score(self, cell: Cell) -> Path:
        """The folder with the scores of one training."""
        return self.out / "scores" / "cells" / cell.path

    def label_score(self, variant: str) -> Path:
        """The folder with the scores and the audit of one pseudo-label variant."""
        return self.out / "scores" / "labels" / variant

    @property
    def tables(self) -> Path:
        """The comparison tables."""
        return self.out / "tables"

    @property
    def timings(self) -> Path:
        """What finished stage instances took; no output of DVC."""
        return self.out / "timings"

    def work(self, *parts: str) -> Path:
        """Half-finished work of one stage instance; never a DVC output."""
        return self.out / ".work" / Path(*parts)
