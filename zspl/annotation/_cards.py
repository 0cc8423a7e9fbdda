"""A photo beside its labels as a piece of the page, with a legend in words."""

import io
from html import escape

from PIL import Image

from zspl.annotation.facts import Facts
from zspl.annotation.photos import printable
from zspl.annotation.pictures import class_name, pair, percent, shares
from zspl.annotation.results import Results
from zspl.evaluation.webpage import picture
from zspl.records import IGNORE_INDEX
from zspl.viz import class_colour

BOX = (400, 300)
_CHIPS = 8
_LONGEST_NAME = 160
_PICTURE_BYTES = 60_000
_QUALITIES = (84, 70, 50, 30, 10)

STYLE = """
.cards { display: grid; gap: 1.2rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.card { margin: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 3px; background: var(--raised);
  border-radius: 6px; overflow: hidden; }
.pair img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; display: block; }
.pair p { grid-column: 1 / 3; padding: 1rem; margin: 0; color: var(--faint); }
.card figcaption { font-size: .9em; margin-top: .35rem; }
.card .why { color: var(--faint); margin: .1rem 0; }
.chips { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .15rem 0 0; padding: 0;
  list-style: none; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .35em; vertical-align: -.05em; box-shadow: 0 0 0 1px var(--line); }
.unclaimed { background: repeating-linear-gradient(135deg, #6e6e6e 0 3px, #d7d7d7 3px 6px); }
"""


def text(value: str, *, longest: int = _LONGEST_NAME) -> str:
    """Return any text safe to show in HTML, on one line and cut in the middle if it is long."""
    line = printable(value)
    if len(line) > longest:
        line = f"{line[: longest // 2]}…{line[-(longest // 2) :]}"
    return escape(line).replace(" %", "&nbsp;%")


def swatch(class_id: int) -> str:
    """Return the little square of a class's colour, striped for 255."""
    if class_id == IGNORE_INDEX:
        return "<span class='swatch unclaimed'></span>"
    return f"<span class='swatch' style='background:#{bytes(class_colour(class_id)).hex()}'></span>"


def card(results: Results, facts: Facts, *, why: str = "") -> str:
    """Return a photo, its labels and their legend as HTML.

    Args:
        results: Where the photo and the label map lie.
        facts: Of the photo.
        why: What is said below the name, plain text.
    """
    both = pair(results, facts, box=BOX)
    if both is None:
        pictures = "<p>The photo is gone or was changed after it was labeled.</p>"
    else:
        photo = picture(_jpeg(both.photo), text="photo", kind="jpeg")
        painted = picture(_jpeg(both.painted), text="labels over the photo", kind="jpeg")
        pictures = photo + painted
    reason = f"<p class='why'>{text(why)}</p>" if why else ""
    return (
        f"<figure class='card'><div class='pair'>{pictures}</div>"
        f"<figcaption>{text(facts.source)}{reason}{_legend(results, facts)}</figcaption></figure>"
    )


def _legend(results: Results, facts: Facts) -> str:
    found = shares(facts)
    chips = [
        f"<li>{swatch(i)}{text(class_name(results.table.names, i))} {text(percent(share))}</li>"
        for i, share in found[:_CHIPS]
    ]
    if len(found) > _CHIPS:
        chips.append(f"<li>and {len(found) - _CHIPS} more</li>")
    return f"<ul class='chips'>{''.join(chips) or '<li>background only</li>'}</ul>"


def _jpeg(image: Image.Image) -> bytes:
    """Return the picture in at most 60 kB, unless the lowest quality needs more."""
    content = b""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality, optimize=True)
        content = buffer.getvalue()
        if len(content) <= _PICTURE_BYTES:
            break
    return content
