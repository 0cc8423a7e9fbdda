"""Run one instance of one stage, tracked: `python -m tasks train method=unimatch seed=0 ...`.

This is the command of every stage in dvc.yaml. It reads params.yaml in the current folder.
`python -m tasks check` only reads it: DVC does not see a key that no stage watches.
`python -m tasks replay` sends what could not be sent to MLflow while its server was away.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tasks import lifeline
from tasks.tracking import replay, tracked
from zspl import stages
from zspl.errors import SettingsError, ZsplError
from zspl.settings import Settings

USER_ERROR = 2


def main(arguments: Sequence[str]) -> int:
    """Run the stage that `arguments` name and return the exit code."""
    lifeline.die_with_parent()
    try:
        settings = Settings.read(Path("params.yaml"))
        if list(arguments) == ["check"]:
            return 0
        if list(arguments) == ["replay"]:
            sys.stderr.write(f"zspl: {replay(settings)}\n")
            return 0
        stage, instance = parse(arguments)
        if stage == "train" and "WORLD_SIZE" not in os.environ:
            _train_together(processes_from(os.environ.get("ZSPL_PROCESSES") or "1"), arguments)
        with tracked(stage, settings, instance) as observer:
            observer.metrics(stages.run(stage, settings, observer, **instance))
    except ZsplError as error:
        sys.stderr.write(f"zspl: {error}\n")
        return USER_ERROR
    return 0


def parse(arguments: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Split `train method=unimatch seed=0` into the stage and its instance.

    Raises:
        SettingsError: if the stage is unknown or an argument is no `key=value`.

    Example:
        >>> parse(["propose", "proposer=sam", "shard=0"])
        ('propose', {'proposer': 'sam', 'shard': '0'})
    """
    if not arguments or arguments[0] not in stages.STAGES:
        raise SettingsError(
            f"expected `python -m tasks <stage> key=value ...` with a stage of"
            f" {', '.join(stages.STAGES)}; got {' '.join(arguments) or 'nothing'}"
        )
    pairs = [argument.partition("=") for argument in arguments[1:]]
    for key, equals, value in pairs:
        if not (key and equals and value):
            raise SettingsError(f"expected key=value, got {key + equals + value!r}")
    return arguments[0], {key: value for key, _, value in pairs}


def processes_from(text: str) -> int:
    """Return how many processes train one cell together, usually one per GPU.

    Raises:
        SettingsError: if `text` is no whole number from 1 up.
    """
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"ZSPL_PROCESSES is {text!r}, expected a whole number such as 2")
    return int(text)


def _train_together(processes: int, arguments: Sequence[str]) -> None:
    """Become torchrun, which starts this command once per process; one process needs none."""
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        again = [*torchrun, str(processes), "-m", "tasks", *arguments]
        os.execv(sys.executable, [sys.executable, *again])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
