"""The lines that docs/troubleshooting.md explains are lines that the code says."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = ("DVC: ", "Prefect: ", "`make` ", "`command not found")


def spoken(node):
    """Return a text of the code, with … where a value stands."""
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@cache
def said():
    files = [p for folder in ("zspl", "tasks", "flows") for p in (ROOT / folder).rglob("*.py")]
    trees = (ast.walk(ast.parse(path.read_text("utf-8"))) for path in files)
    texts = [text for tree in trees for node in tree if (text := spoken(node))]
    texts.append((ROOT / "Makefile").read_text("utf-8"))
    return "\n".join(re.sub(r"%[ds]", "…", text) for text in texts)


def lines():
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    first = re.findall(r"^\| ((?:[^|`]|`[^`]*`)+) \|", page, re.MULTILINE)
    cells = [cell for cell in first if not cell.startswith(FOREIGN)]
    return sorted({text for cell in cells for text in re.findall(r"`([^`]{9,})`", cell)})


@pytest.mark.parametrize("line", lines())
def test_a_line_that_the_page_explains_is_in_the_code(line):
    assert line in said()


def test_the_page_explains_lines_of_every_kind():
    assert len(lines()) > 40
