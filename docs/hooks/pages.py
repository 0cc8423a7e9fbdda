"""Pages of the site that are not files in docs/: mkdocs asks for them when it builds.

The settings, the command line, the plugins and the Python names are read from the code, the
changelog and the house rules from the root of the repository, so that none can fall behind.
"""

import re
from pathlib import Path

import commands_page
import plugins_page
import settings_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_API = {
    "losses": ("Losses and metrics", "zspl.losses zspl.metrics"),
    "methods": (
        "Methods and models",
        "zspl.methods zspl.models zspl.models.network zspl.inference",
    ),
    "labels": (
        "Proposals, features, labels",
        "zspl.proposals zspl.features zspl.features.gem zspl.labeling zspl.labeling.sepl",
    ),
    "data": (
        "Data and records",
        "zspl.records zspl.datasets zspl.io.classes zspl.io.images zspl.data.cutmix",
    ),
    "annotation": (
        "Annotating",
        "zspl.annotation.choices zspl.annotation.annotator zspl.annotation.photos",
    ),
    "stages": (
        "Stages, tasks, flows",
        "zspl.errors zspl.plugins zspl.observer zspl.stages tasks.dag flows.full_benchmark",
    ),
}
"""Page below reference/ -> its title, and the modules whose public names it shows."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, not written."""
    docs = Path(config.docs_dir)
    pages = {
        "reference/settings.md": settings_page.markdown(),
        "reference/commands.md": commands_page.markdown(docs.parent / "Makefile"),
        "reference/plugins.md": plugins_page.markdown(),
        "decisions/index.md": _decisions(docs / "decisions"),
        "changelog.md": _moved(docs.parent / "CHANGELOG.md"),
        "contributing.md": _moved(docs.parent / "CONTRIBUTING.md"),
        **{f"reference/{name}.md": _api(*page) for name, page in _API.items()},
    }
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def _api(title: str, modules: str) -> str:
    return "\n\n".join([f"# {title}", *(f"::: {name}" for name in modules.split())])


def _decisions(folder: Path) -> str:
    lines = ["# Decisions", "", "Changes of the design, and why: ten lines each.", ""]
    for path in sorted(folder.glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines)


def _moved(path: Path) -> str:
    """Return a page of the root with its links as seen from docs/."""
    return re.sub(r"\]\(docs/", "](", path.read_text(encoding="utf-8"))
