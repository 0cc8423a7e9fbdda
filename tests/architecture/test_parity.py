"""docs/parity.md names tests that exist, and every check that concerns training has one."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TABLE = (TESTS.parent / "docs" / "parity.md").read_text()
ROWS = re.findall(r"^\| (\d+) \|.*\| (\S+)::(\w+) \|$", TABLE, re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), sorted({row[1:] for row in ROWS}))
def test_a_test_that_the_table_of_parity_names_exists(file, name):
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_check_from_15_to_42_has_a_test():
    assert {int(number) for number, _, _ in ROWS} == set(range(15, 43))
