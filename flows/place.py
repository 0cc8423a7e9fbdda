"""The first step of every deployment: go to the clone of the worker that took the run.

A path in prefect.yaml would be that of the machine where `prefect deploy` ran, also when it is
written as an environment variable: Prefect fills that in while it registers the deployments.
"""

import os
from pathlib import Path

from zspl.errors import SettingsError


def enter_clone() -> dict[str, str]:
    """Make ZSPL_HOME of this worker the current folder and tell Prefect.

    Raises:
        SettingsError: if ZSPL_HOME is not set or no folder.
    """
    home = os.environ.get("ZSPL_HOME", "")
    if not home or not Path(home).is_dir():
        raise SettingsError(f"ZSPL_HOME is {home!r}; set it to the clone where the worker starts")
    os.chdir(home)
    return {"directory": home}
