"""Which SAM a command uses: by short name, by checkpoint file, or what suits the machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zspl.errors import SettingsError, suggestion
from zspl.io import devices

SAMS = {"mobile_sam": "vit_t", "vit_t": "vit_t", "tiny": "tiny"} | {
    name: name for name in ("vit_b", "vit_l", "vit_h")
}
"""What a user may write, and the model it means."""

_SAM_FOR = {"cpu": "mobile_sam", "gpu": "vit_h"}

_TINY = {
    "points_per_side": 8,
    "pred_iou_thresh": 0.7,
    "stability_score_thresh": 0.7,
}
"""What fits the weights in the package."""


def sam_settings(
    wanted: str | None, *, dtype: str, changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the settings of `zspl/proposals/sam.py` for what a user asked for.

    Args:
        wanted: A short name, a checkpoint file below ZSPL_WEIGHTS, or None: MobileSAM on a CPU,
            ViT-H on a GPU.
        dtype: Precision of the networks; auto is resolved for this machine, so that another
            machine's choice is seen to differ.
        changes: Settings the user gives; `model` tells what a checkpoint file holds.

    Raises:
        SettingsError: if there is no such model, or a file's name does not tell its model.
    """
    given = changes or {}
    on_gpu = devices.chosen().type != "cpu"
    name = wanted or _SAM_FOR["gpu" if on_gpu else "cpu"]
    settings: dict[str, Any] = {"dtype": str(devices.dtype(dtype)).removeprefix("torch.")}
    if name in SAMS:
        settings["model"] = SAMS[name]
    elif Path(name).suffix:
        settings |= {"checkpoint": name, "model": str(given.get("model") or _model_in(name))}
    else:
        known = suggestion(name, [*SAMS, "a checkpoint file below ZSPL_WEIGHTS"])
        raise SettingsError(f"--sam {name}: no such model. {known}")
    return settings | (_TINY if settings["model"] == "tiny" else {})


def _model_in(file: str) -> str:
    """Tell the model from a checkpoint's file name, as the official ones spell it."""
    for name, model in SAMS.items():
        if name in file:
            return model
    raise SettingsError(
        f"--sam {file}: its name does not tell the model; add --set proposals.model=vit_b "
        "(vit_t, vit_l, vit_h)"
    )
