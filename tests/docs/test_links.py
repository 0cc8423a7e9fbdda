"""Links of the pages lead to files and headings that are there."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def prose(page):
    """Return a page without its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`|^    .*$", "", text, flags=re.MULTILINE)


@cache
def anchors(page):
    """Return the anchors that readers of plain Markdown give the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(
    ("page", "target"), sorted(set(links())), ids=lambda part: getattr(part, "name", str(part))
)
def test_a_relative_link_leads_to_a_file_and_a_heading_of_it(page, target):
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page

    assert file.exists()
    assert not anchor or anchor in anchors(file)


def test_the_pages_have_links():
    assert len(list(links())) > 20
