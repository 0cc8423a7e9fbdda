"""The seven stages, one word each: they read files, write files and report numbers.

`run(stage, settings, observer, **instance)` is the only entry; `instance` names the part of
the stage to run (`shard`, `proposer`, `method`, ...), as the keyword-only parameters of the
stage's own `run` declare.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from zspl.errors import DiskError, SettingsError
from zspl.io.timings import timed
from zspl.observer import Observer
from zspl.settings import Settings

STAGES = ("prepare", "propose", "embed", "label", "train", "evaluate", "tabulate")

Summary = Mapping[str, float]


def run(stage: str, settings: Settings, observer: Observer, **instance: str) -> Summary:
    """Run one instance of one stage and return its headline numbers.

    Raises:
        SettingsError: if the stage is unknown, or `instance` lacks or has too many keys.
        DiskError: if a file or folder cannot be read or written.
        ZsplError: whatever the stage finds wrong with its inputs.
    """
    if stage not in STAGES:
        raise SettingsError(f"no stage {stage!r}; stages: {', '.join(STAGES)}")
    function = importlib.import_module(f"zspl.stages.{stage}").run
    arguments = _typed(stage, function, instance)
    torch.set_num_threads(settings.threads)
    try:
        with timed(settings, stage, arguments) as numbers:
            result: Summary = function(settings, observer, **arguments)
            numbers.update(result)
    except OSError as error:
        raise DiskError(
            f"stage {stage}: {error.filename or 'a file'}: {error.strerror or error}; mend it and "
            "run again, finished work stays"
        ) from error
    return result


def _typed(stage: str, function: Any, instance: Mapping[str, str]) -> dict[str, Any]:  # noqa: ANN401
    """Check the instance's keys against the stage's own parameters and convert numbers."""
    declared = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    required = {n for n, p in declared.items() if p.default is inspect.Parameter.empty}
    if not required <= set(instance) <= set(declared):
        wanted = " ".join(f"{name}=..." for name in declared) or "nothing"
        given = " ".join(f"{key}={value}" for key, value in instance.items()) or "nothing"
        raise SettingsError(f"stage {stage} takes {wanted}, got {given}")
    numbers = {n for n, p in declared.items() if p.annotation is int}
    try:
        return {k: int(v) if k in numbers else v for k, v in instance.items()}
    except ValueError as error:
        raise SettingsError(
            f"stage {stage}: {error}; {', '.join(numbers)} are whole numbers"
        ) from error
