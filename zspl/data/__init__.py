"""From records to training batches: geometry, colours, CutMix boxes and loading."""

from zspl.io.layout import Layout
from zspl.io.splits import read_ids


def ids_of_shard(layout: Layout, shard: int) -> tuple[str, ...]:
    """Return the ids of the images that a shard annotates, sorted.

    Raises:
        DataError: if `prepare` has not written that shard.
    """
    return read_ids(layout.shard(shard))
