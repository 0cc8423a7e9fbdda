"""Ready label maps from a folder: other people's pseudo labels."""

from zspl.labeling import LabelInputs
from zspl.labeling._folder import FolderLabels, FolderSettings
from zspl.labeling._scoring import Scored, always


class Settings(FolderSettings):
    """Settings of ready label maps."""


class FromFolder(FolderLabels):
    """Passes label maps on, with their values turned into class ids."""

    needs: frozenset[str] = frozenset()

    def score(self, inputs: LabelInputs) -> Scored:
        """Read the label map; no threshold applies to it.

        Raises:
            DataError: if it is missing, of another size, or holds an illegal id.
        """
        return always(*self.read(inputs.image_id, table=inputs.table, size=inputs.size))


def build(settings: Settings) -> FromFolder:
    """Return the labeler."""
    return FromFolder(settings)
