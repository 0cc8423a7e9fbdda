"""zspl up, down, status: started as a child, since zspl knows no orchestrator."""

import argparse
import importlib.util
import subprocess
import sys

from zspl.errors import SettingsError


def run(arguments: argparse.Namespace) -> int:
    """Hand the command to `flows.services` and return its exit code."""
    if importlib.util.find_spec("flows") is None or importlib.util.find_spec("prefect") is None:
        raise SettingsError(
            f"zspl {arguments.command}: needs the benchmark's packages; run make up in the"
            " repository, or pip install -e '.[pipeline]' there"
        )
    command = [sys.executable, "-m", "flows.services", arguments.command]
    return subprocess.call(command)
