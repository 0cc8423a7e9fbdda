"""zspl doctor: what is missing on this machine and in the project here, and how to mend it."""

import argparse
import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from zspl.cli import _doctor_machine, _doctor_project
from zspl.cli._finding import Finding
from zspl.cli._folders import say

PROBLEM = 1
_WORDS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def run(arguments: argparse.Namespace) -> int:
    """Print every finding; return 1 if one is a problem."""
    params: Path = arguments.params
    folder = params.parent if params.parent.is_dir() else Path()
    with contextlib.chdir(folder):
        found = [*_doctor_machine.findings(), *_doctor_project.findings(Path(params.name))]
    problems = sum(finding.level == "problem" for finding in found)
    if arguments.json:
        values = {"ok": not problems, "findings": [asdict(finding) for finding in found]}
        print(json.dumps(values, indent=2))
    else:
        _print(found, problems)
    return PROBLEM if problems else 0


def _print(found: Sequence[Finding], problems: int) -> None:
    width = max(len(finding.about) for finding in found)
    for finding in found:
        say(f"{_WORDS[finding.level]}  {finding.about:<{width}}  {finding.found}")
        if finding.fix is not None:
            say(f"{'':<9}{'':<{width}}  -> {finding.fix}")
    notes = sum(finding.level == "note" for finding in found)
    counts = [
        f"{number} {word}{'' if number == 1 else 's'}"
        for number, word in ((problems, "problem"), (notes, "note"))
        if number
    ]
    say("")
    say(f"{', '.join(counts) or 'all is well'}")
