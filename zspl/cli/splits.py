"""zspl splits: which lists of images there are."""

import argparse
import contextlib
from pathlib import Path

from zspl.datasets import pascal_voc
from zspl.errors import SettingsError
from zspl.io.layout import Layout
from zspl.io.splits import PARTS, read_ids, read_split
from zspl.settings import Settings


def run(arguments: argparse.Namespace) -> int:
    """Print the official lists, or the splits of a prepared benchmark."""
    if arguments.params is None:
        folder = Path(pascal_voc.__file__).parent / "pascal"
        print("pascal_voc, official lists of image ids shipped with zspl")
        for name, file in pascal_voc.OFFICIAL.items():
            print(f"  {name:<14} {len(read_ids(folder / f'{file}.txt')):>6}")
        return 0
    if not arguments.params.is_file():
        raise SettingsError(f"{arguments.params}: no such file; pass --params with a params.yaml")
    with contextlib.chdir(arguments.params.absolute().parent):
        settings = Settings.read(Path(arguments.params.name))
        layout = Layout(settings.paths.out)
        print(f"{'split':<16}" + "".join(f"{part:>11}" for part in PARTS))
        for name in settings.prepare.splits:
            split = read_split(layout.split(name))
            counts = (len(getattr(split, part)) for part in PARTS)
            print(f"{name:<16}" + "".join(f"{count:>11}" for count in counts))
    return 0
