"""MLflow, seen from a stage as an `Observer`.

A stage writes what it reports to a journal, a file below `artifacts/.work/tracking`, and never
speaks to a server (`observer`, `journal`). One sender process per folder takes the journals to
MLflow, in order and without duplicates, and outlives the stages by some seconds (`sender`). Only
`recorder` imports mlflow. Tracking is a witness: when it fails, the stage goes on and the journals
wait for the next stage or for `python -m tasks replay`.

The experiment of a benchmark holds one run per training cell below one parent run, which has the
tables and figures of `tabulate`. The other stages go to a second experiment, `<benchmark>-stages`.
"""

from tasks.tracking.observer import tracked
from tasks.tracking.sender import replay

__all__ = ["replay", "tracked"]
