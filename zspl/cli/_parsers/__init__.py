"""What the commands accept, one file per command.

Nothing heavy is imported here, so that help is instant.
"""

import argparse

from zspl.cli._parsers import (
    annotate,
    doctor,
    export,
    init,
    plan,
    predict,
    refine,
    run,
    score,
    services,
    splits,
    weights,
)
from zspl.cli._parsers._layout import formatted

_COMMANDS = (
    init,
    doctor,
    run,
    annotate,
    predict,
    export,
    refine,
    score,
    weights,
    splits,
    plan,
    services,
)

_TOP = """\
commands by purpose:
  zspl init DIR --images DIR --masks DIR --classes cat,dog  a project of one's own photos
  zspl doctor                                       what is missing here, and how to mend it
  zspl run prepare                                  one stage of the benchmark in params.yaml
  zspl annotate --images DIR --classes cat,dog --out DIR    pseudo labels for any photos
  zspl predict --checkpoint CELL --images DIR --out DIR     what a trained network sees
  zspl export --checkpoint CELL --out model.onnx    the network as ONNX
  zspl refine --labels DIR --images DIR --out DIR   snap any label maps to segments
  zspl score --predictions DIR --labels DIR         mIoU of label maps
  zspl up                                           Prefect, its worker and MLflow on this machine

The benchmark as a whole: `dvc repro`, or the Prefect flow full-benchmark. Settings live in
params.yaml; ZSPL_DEVICE, ZSPL_WORKERS and ZSPL_WEIGHTS say where and how fast.
exit codes: 0 done, 1 done but some inputs were skipped, 2 you can fix it, 130 stopped"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = formatted(
        argparse.ArgumentParser(
            prog="zspl",
            description="Zero-shot pseudo labels from SAM and CLIP for semi-supervised "
            "semantic segmentation.",
            epilog=_TOP,
        )
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return top
