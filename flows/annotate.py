"""`zspl annotate` as a Prefect flow: a form instead of a command line, its lines in the log."""

import sys
from collections import deque
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel, Field

from flows.artifacts import show_picture, show_tables
from flows.child import Children, StageFailedError

QUARANTINED = 1
SHEET = "contact_sheet.png"
_LINES_SHOWN = 30


class More(BaseModel, extra="forbid", frozen=True):
    """What `zspl annotate --help` tells in full; an empty field means the command's default."""

    background: str = Field("", description="What else may be seen, such as: sky, grass.")
    masks: str = Field(
        "", description="Folder with masks of some photos: they calibrate the labels."
    )
    preview: int | None = Field(
        None, ge=1, description="Label only so many photos and draw the contact sheet."
    )
    export: str = Field("", description="Formats to write, too: coco, labelstudio, voc, yolo.")
    sam: str = Field("", description="SAM model: mobile_sam, vit_b, vit_l, vit_h, tiny.")
    clip: str = Field("", description="open_clip model with its weights, or tiny.")
    features: str = Field("", description="How CLIP looks at pixels: gem, clip, sclip, ...")
    proposals: str = Field("", description="Segments: sam, superpixels, none.")


@flow(name="annotate", flow_run_name="{out}")
def annotate(images: str, classes: str, out: str, more: More | None = None) -> State[Any]:
    """Make pseudo labels for a folder of photos from class names.

    Killed or cancelled, the same parameters continue; other settings need another `out`.

    Args:
        images: The folder of photos; it is only read. Paths are seen from the repository.
        classes: Names separated by commas, such as: cat, dog=dog|puppy; or a text or YAML file.
        out: The folder for label maps, confidences, the report and the exports.
        more: Options of the command line, by their names there.

    Raises:
        StageFailedError: if the command fails; the message is its line.
    """
    logger = get_run_logger()
    children = Children(1)
    try:
        words = command(images, classes, out, more or More())
        code, lines = children.run(words, "annotate", Path.cwd(), logger.info)
    finally:
        children.stop()
    said = [line for line in lines if line.startswith("zspl: ")]
    if code not in {0, QUARANTINED}:
        raise StageFailedError(" | ".join(said or list(lines)[-5:]))
    _publish(Path(out), lines)
    return Completed(
        name="Some in quarantine" if code == QUARANTINED else None,
        message=next((line for line in lines if "photos labeled" in line), ""),
    )


def command(images: str, classes: str, out: str, more: More) -> list[str]:
    """Return the command line of `zspl annotate`; what is empty in `more` is left to it."""
    words = [sys.executable, "-m", "zspl", "annotate"]
    needed = {"images": images, "classes": classes, "out": out}
    options = {**needed, **more.model_dump(exclude_none=True)}
    # --name=value, so that a value that begins with a dash stays a value.
    return [*words, *(f"--{name}={value}" for name, value in options.items() if value != "")]


def _publish(out: Path, lines: deque[str]) -> None:
    """Show the command's last lines and the contact sheet on the run's page."""
    name = out.name or "labels"
    summary = "\n".join(["```", *list(lines)[-_LINES_SHOWN:], "```"])
    show_tables([summary], f"annotate-{name}")
    if (sheet := out / SHEET).exists():
        show_picture(sheet, f"annotate-{name}", f"{out / SHEET}")
