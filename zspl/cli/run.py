"""zspl run: one stage, without DVC, Prefect or MLflow."""

import argparse
import contextlib
import json
from pathlib import Path

from zspl import stages
from zspl.cli._pairs import pairs, values
from zspl.errors import SettingsError
from zspl.io.layout import Layout
from zspl.observer import Silent
from zspl.settings import Settings


def run(arguments: argparse.Namespace) -> int:
    """Run the stage and print its headline numbers."""
    params: Path = arguments.params
    if not params.parent.is_dir():
        raise SettingsError(f"{params}: no such folder; pass --params with an existing file")
    instance = pairs(arguments.instance)
    changes = values(arguments.changes)
    with contextlib.chdir(params.parent):
        settings = Settings.read(Path(params.name), changes)
        summary = stages.run(arguments.stage, settings, Silent(), **instance)
        if arguments.stage == "tabulate":
            tables = Layout(settings.paths.out).tables
            print((tables / "table.txt").read_text(encoding="utf-8"))
            print(f"page: {tables / 'index.html'}")
    print(json.dumps(dict(summary)))
    return 0
