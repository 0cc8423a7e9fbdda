"""What `zspl run` accepts."""

from pathlib import Path

from zspl.cli._parsers._layout import Commands, add_set, formatted

_EPILOG = """\
examples:
  zspl run prepare
  zspl run propose proposer=sam shard=0
  zspl run label variant=sam_gem
  zspl run train method=enhanced labels=sam_gem model=small split=labeled_20 seed=0
  zspl run evaluate variant=sam_gem --set label.calibration_split=labeled_40
  zspl run tabulate --params benchmarks/animals/params.yaml

Runs one stage as it is, without DVC, Prefect or MLflow. Paths are seen from the folder of
params.yaml. The last line printed is the stage's headline numbers as JSON."""


def add(commands: Commands) -> None:
    """Add `zspl run`."""
    help_ = "run one stage of the benchmark in params.yaml"
    command = formatted(commands.add_parser("run", help=help_, description=help_, epilog=_EPILOG))
    command.add_argument(
        "stage", help="prepare, propose, embed, label, train, evaluate or tabulate"
    )
    command.add_argument(
        "instance", nargs="*", metavar="KEY=VALUE", help="which part of the stage, such as shard=0"
    )
    command.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    add_set(command, "a setting of params.yaml for this once, such as train.iterations=10")
