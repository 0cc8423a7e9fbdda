"""Files of the Hugging Face hub, or of a mirror that `HF_ENDPOINT` names.

They lie in the weights folder under the repository's name, such as
`timm/vit_base_patch16_clip_224.openai/open_clip_model.safetensors`, so that a machine without
network needs no more than a copy of that folder. What huggingface_hub has in its own cache is
used, too.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zspl.errors import WeightsError
from zspl.io import weights
from zspl.io._transfer import Patience, Source

_ENDPOINT = "https://huggingface.co"
_YES = {"1", "on", "yes", "true"}
_SHA256_LENGTH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """One file of a repository, with what is known of it beforehand.

    Attributes:
        repository: Such as `timm/vit_base_patch16_clip_224.openai`.
        names: The file's name, or several in the order of preference; the first that the
            repository has is taken.
        revision: A branch or a commit.
        sha256: Of the content, or None: then the hub's own hash is asked for and must be met.
        size: In bytes, or None.
    """

    repository: str
    names: Sequence[str]
    revision: str = "main"
    sha256: str | None = None
    size: int | None = None

    def places(self) -> list[str]:
        """Return where the file may lie below the weights folder."""
        return [f"{self.repository}/{name}" for name in self.names]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Remote:
    """What the hub says of a file."""

    name: str
    revision: str
    sha256: str | None
    size: int | None


class _AbsentError(Exception):
    """The repository has no file of that name."""


def obtain(file: HubFile, *, patience: Patience | None = None) -> Path:
    """Find a file in the weights folder or in the hub's cache, or download and verify it.

    A file that was downloaded without a checksum known beforehand gets one beside it, the
    hub's, and is checked against it from then on.

    Raises:
        WeightsError: if the file cannot be had or its checksum differs, or if it would have to
            be downloaded and `HF_HUB_OFFLINE` is set.
        DiskError: if it cannot be written.
    """
    found = find(file)
    if found is not None:
        return found
    return fetch(file, patience=patience)


def find(file: HubFile) -> Path | None:
    """Return a file that is already on this machine, checked, or None.

    Raises:
        WeightsError: if the one in the weights folder has another checksum.
    """
    for place in file.places():
        if weights.below(place).is_file():
            return weights.resolve(place, sha256=file.sha256)
    return _from_cache(file)


def fetch(file: HubFile, *, patience: Patience | None = None) -> Path:
    """Download a file into the weights folder and verify it.

    Raises:
        WeightsError: if it cannot be had, or `HF_HUB_OFFLINE` is set.
        DiskError: if it cannot be written.
    """
    what = f"{file.repository}/{file.names[0]}"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in _YES:
        raise WeightsError(
            f"{what}: not in {weights.folder()}, and HF_HUB_OFFLINE is set; unset it, or copy the "
            f"file to {weights.below(what)}"
        )
    remote = _known(file) or _asked(file, patience or Patience())
    to = weights.below(f"{file.repository}/{remote.name}")
    source = Source(
        url=_url(file.repository, remote.name, remote.revision),
        size=remote.size,
        authorization=_authorization(),
    )
    weights.download(source, sha256=remote.sha256, to=to, patience=patience)
    if file.sha256 is None:
        weights.record(to)
    return to


def _known(file: HubFile) -> _Remote | None:
    if file.sha256 is None or len(file.names) != 1:
        return None
    return _Remote(name=file.names[0], revision=file.revision, sha256=file.sha256, size=file.size)


def _asked(file: HubFile, patience: Patience) -> _Remote:
    for name in file.names:
        try:
            return _head(file, name, patience)
        except _AbsentError:
            continue
    raise WeightsError(
        f"{file.repository}: the hub has none of {', '.join(file.names)} at {file.revision}; "
        "check the name"
    )


def _head(file: HubFile, name: str, patience: Patience) -> _Remote:
    try:
        from huggingface_hub import get_hf_file_metadata
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"{file.repository}: needs the package huggingface_hub; pip install 'zspl[clip]'"
        ) from error
    url = _url(file.repository, name, file.revision)
    try:
        said = get_hf_file_metadata(url, timeout=patience.connect_timeout, endpoint=_endpoint())
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"{url}: there is no such repository, or it needs a token (HF_TOKEN); check the name"
        ) from error
    except EntryNotFoundError as error:
        raise _AbsentError(name) from error
    except Exception as error:  # the hub's client lets its HTTP library's errors through
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"{url}: the hub could not be asked ({reason}); check the network, or copy the file to "
            f"{weights.below(f'{file.repository}/{name}')}"
        ) from error
    # Files of git itself, not of its large file storage, have a sha1 here.
    sha256 = said.etag if said.etag is not None and len(said.etag) == _SHA256_LENGTH else None
    return _Remote(
        name=name, revision=said.commit_hash or file.revision, sha256=sha256, size=said.size
    )


def _from_cache(file: HubFile) -> Path | None:
    """Look into the cache that huggingface_hub keeps for all programs of this user."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        return None
    for name in file.names:
        cached: Any = try_to_load_from_cache(file.repository, name, revision=file.revision)
        if not isinstance(cached, str):
            continue
        path = Path(cached)
        # The cache names a large file by its sha256.
        expected = file.sha256 or path.resolve().name
        if len(expected) == _SHA256_LENGTH and weights.file_sha256(path) == expected:
            return path
    return None


def _authorization() -> str | None:
    try:
        from huggingface_hub import get_token
    except ModuleNotFoundError:
        return None
    token = get_token()
    return None if token is None else f"Bearer {token}"


def _url(repository: str, name: str, revision: str) -> str:
    return f"{_endpoint()}/{repository}/resolve/{quote(revision, safe='')}/{quote(name)}"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _ENDPOINT
