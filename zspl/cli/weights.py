"""zspl weights: where a checkpoint lies, and whether its bytes are right."""

import argparse

from zspl.io import weights


def run(arguments: argparse.Namespace) -> int:
    """Print the checkpoint's path, or its sha256 and path."""
    path = weights.resolve(arguments.name, sha256=arguments.sha256)
    print(path if arguments.action == "path" else f"{weights.file_sha256(path)}  {path}")
    return 0
