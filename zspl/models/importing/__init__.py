"""Published checkpoints under zspl's own names: one file per source.

A source has `WHAT` (its name in messages), `LICENCE` (of a row in the catalog, or None),
`matches(keys)`, which tells its files by their keys, and `convert(state)`, which returns the same
tensors named `backbone.*` and `head.*` as zspl's networks name them. A key that `convert` does
not know keeps its name, and is reported as foreign by whoever loads the result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from zspl import plugins
from zspl.io import catalog

PARTS = ("backbone", "head")
PARALLEL = "module."


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """The tensors of a checkpoint under zspl's names.

    Attributes:
        what: Whose checkpoint it is, in words.
        state: The tensors, named `backbone.*` and `head.*`.
        whole: Every key is known to belong to one of the parts. If not, the file may also hold
            parts that zspl has no use for, such as ImageNet's classifier.
        restriction: One clause on what the licence forbids, or None.
    """

    what: str
    state: Mapping[str, Tensor]
    whole: bool
    restriction: str | None = None


def translate(
    state: Mapping[str, Tensor], *, placed: Callable[[str], str] | None = None
) -> Imported:
    """Recognise a checkpoint by its keys and rename its tensors.

    Files that no source recognises are taken as zspl's own, if their keys begin with backbone
    and head, or else as a backbone under the names of its library, to which `placed` is applied.
    """
    if state and all(key.startswith(PARALLEL) for key in state):
        state = {key.removeprefix(PARALLEL): tensor for key, tensor in state.items()}
    keys = frozenset(state)
    for name in plugins.names(__name__):
        source = plugins.load(__name__, name)
        if source.matches(keys):
            restriction = None if source.LICENCE is None else catalog.restriction(source.LICENCE)
            return Imported(
                what=source.WHAT, state=source.convert(state), whole=True, restriction=restriction
            )
    if {key.partition(".")[0] for key in keys} == set(PARTS):
        return Imported(what="zspl's own checkpoint", state=state, whole=True)
    named = {
        f"backbone.{key if placed is None else placed(key)}": tensor
        for key, tensor in state.items()
    }
    return Imported(what="a backbone", state=named, whole=False)
