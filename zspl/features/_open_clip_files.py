"""Which file holds the weights of an open_clip model and tag: the catalog's, or open_clip's own."""

from dataclasses import replace
from pathlib import PurePosixPath

from zspl.errors import WeightsError
from zspl.io import catalog

# What open_clip looks for in a repository, in its order.
_HUB_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_SHORTEST_HASH = 8


def entry(model: str, tag: str) -> catalog.Entry:
    """Return where the weights that open_clip calls `model`, `tag` come from.

    Raises:
        WeightsError: if open_clip does not know them.
    """
    return catalog.find(f"{model}:{tag}", also=named)


def named(name: str) -> catalog.Entry | None:
    """Return the weights called MODEL:TAG that open_clip knows and the catalog does not, or None.

    Raises:
        WeightsError: if open_clip knows where they are from but not how to download them.
    """
    model, colon, tag = name.partition(":")
    if not colon:
        return None
    import open_clip

    if tag not in open_clip.list_pretrained_tags_by_model(model):
        return None
    known = open_clip.get_pretrained_cfg(model, tag) or {}
    repository, url = str(known.get("hf_hub") or ""), str(known.get("url") or "")
    if not repository and not url:
        raise WeightsError(f"open_clip has no address for {name}; name a file as `pretrained`")
    folder, _, file = repository.rpartition("/")
    for row in catalog.entries():
        if folder and row.repository == folder:
            return replace(row, name=name)
    return catalog.Entry(
        name=name,
        purpose="embeddings (a model of open_clip)",
        licence="unknown",
        size=None,
        sha256=None if repository else _hash_in(url),
        url=None if repository else url,
        repository=folder or None,
        files=((file,) if file else _HUB_NAMES) if repository else (PurePosixPath(url).name,),
    )


def _hash_in(url: str) -> str | None:
    """Return the sha256, or its beginning, that an address of open_clip carries.

    Two forms are in use: .../<64 digits>/ViT-B-16.pt and .../vit_b_16-laion400m-00efa78f.pt.
    """
    path = PurePosixPath(url)
    for word in (path.parent.name, path.stem.rpartition("-")[2]):
        if len(word) >= _SHORTEST_HASH and not set(word) - set("0123456789abcdef"):
            return word
    return None
