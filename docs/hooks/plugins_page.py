"""The page of plugins: every file of every plugin folder, in its own words."""

import importlib
import inspect
import textwrap
from types import ModuleType

import settings_page

from zspl import plugins

_FOLDERS = {
    "zspl.datasets": "Data sets",
    "zspl.proposals": "Proposals: where segments come from",
    "zspl.features": "Features: how CLIP looks at pixels",
    "zspl.labeling": "Labeling: how segments become labels",
    "zspl.methods": "Training methods",
    "zspl.models.backbones": "Backbones",
    "zspl.models.heads": "Heads: decoders",
    "zspl.annotation.exports": "Exports of `zspl annotate`",
    "zspl.models.importing": "Official checkpoints that are read",
}

_INTRO = """\
# Plugins

A folder is a registry: a name in params.yaml or on the command line is a file's name, and a new
file is a new plugin. Each is described here in the words of its file, with its settings and their
defaults. What is shown under a plugin goes below its name in params.yaml.
"""


def markdown() -> str:
    """Return the page."""
    parts = [_INTRO]
    for package, title in _FOLDERS.items():
        anchor = package.removeprefix("zspl.").replace(".", "-")
        parts.append(f"## {title} {{ #{anchor} }}")
        parts.append(_prose(importlib.import_module(package)))
        for name in plugins.names(package):
            module = plugins.load(package, name)
            parts.append(f"### {name} {{ #{anchor}-{name} }}")
            parts.append(f"`{package.replace('.', '/')}/{name}.py`{_reads(module)}")
            parts.append(_prose(module))
            parts.append(_settings(module))
    return "\n\n".join(part for part in parts if part)


def _reads(module: ModuleType) -> str:
    needs = getattr(module, "NEEDS", None)
    return f", reads {', '.join(sorted(needs))}" if needs else ""


def _settings(module: ModuleType) -> str:
    declared = getattr(module, "Settings", None)
    if declared is None:
        return ""
    return "\n".join(settings_page.table_of(declared)) if declared.model_fields else "No settings."


def _prose(module: ModuleType) -> str:
    """Return a module's docstring as Markdown: what is indented or aligned stays as it is."""
    paragraphs = inspect.cleandoc(module.__doc__ or "").split("\n\n")
    return "\n\n".join(_paragraph(text) for text in paragraphs)


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if any(line.startswith("  ") for line in lines):
        return f"```text\n{textwrap.dedent(text)}\n```"
    for sign in ("<", "*", "_", "["):
        text = "`".join(
            part if index % 2 else part.replace(sign, f"\\{sign}" if sign != "<" else "&lt;")
            for index, part in enumerate(text.split("`"))
        )
    return text
