"""Names of Xception-65 in UniMatch's code, and timm's, which zspl's backbone keeps.

Only names change: both networks hold the same tensors in the same order (methods.md 4.3).
"""

from zspl.models.importing._renaming import Rules

_PARTS = {"depthwise": "conv_dw", "bn1": "bn_dw", "pointwise": "conv_pw", "bn2": "bn_pw"}
_EXIT = 20
_TENSOR = r"(\w+)"


def rules(prefix: str) -> Rules:
    """Return the rules for keys that begin with `prefix`, such as `backbone.`."""
    before = prefix.replace(".", r"\.")
    found: list[tuple[str, str | None]] = []
    for k in (1, 2):
        found += [
            (rf"{before}conv{k}\.weight", rf"backbone.stem.{k - 1}.conv.weight"),
            (rf"{before}bn{k}\.{_TENSOR}", rf"backbone.stem.{k - 1}.bn.\1"),
        ]
    for k in range(_EXIT):
        block, ours = rf"{before}block{k + 1}\.", f"backbone.blocks.{k}"
        found += [
            (rf"{block}skip\.weight", rf"{ours}.shortcut.conv.weight"),
            (rf"{block}skipbn\.{_TENSOR}", rf"{ours}.shortcut.bn.\1"),
        ]
        for theirs, name in _PARTS.items():
            new = rf"{ours}.stack.conv\1.{name}.\2"
            found.append((rf"{block}sepconv(\d)\.{theirs}\.{_TENSOR}", new))
    for k in (1, 2, 3):
        for theirs, name in _PARTS.items():
            new = rf"backbone.blocks.{_EXIT}.stack.conv{k}.{name}.\1"
            found.append((rf"{before}conv{k + 2}\.{theirs}\.{_TENSOR}", new))
    return found
