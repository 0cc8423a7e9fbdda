"""zspl status: see `zspl.cli.up`."""

from zspl.cli.up import run

__all__ = ["run"]
