"""What the page says of calibration: the verdict, what to expect per class, reliability curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zspl.annotation._cards import text

_SIDE = 260
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 12, 14, 40
_TONES = {"Go": "good", "No-go": "bad"}

STYLE = """
.verdict { border-left: 4px solid var(--accent); background: var(--raised); padding: .7rem 1rem;
  border-radius: 0 6px 6px 0; margin: 1rem 0; }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
.reliability { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.reliability figure { margin: 0; flex: 0 1 21rem; }
.reliability svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
.reliability text { fill: var(--faint); }
.reliability figcaption { font-size: .9em; }
.track { position: relative; }
.spread { position: absolute; top: .27em; height: .16em; background: var(--ink);
  box-shadow: 0 0 0 1px var(--paper); }
@media (max-width: 30rem) { .expected th:nth-child(2), .expected td:nth-child(2) {
  display: none; } }
.grid { stroke: var(--line); } .honest { stroke: var(--faint); stroke-dasharray: 4 4; }
.curve { fill: none; stroke: var(--accent); stroke-width: 2; } .dot { fill: var(--accent); }
"""


def block(calibration: Mapping[str, Any]) -> str:
    """Return the section on calibration as HTML.

    Args:
        calibration: What `CalibrationReport.as_json` returns.
    """
    expected = calibration["expected"]
    tone = _TONES.get(calibration["verdict"], "")
    how = (
        "each judged by a decision fitted on others"
        if expected["held_out"]
        else "judged by a decision fitted on itself, which flatters"
    )
    charts = "".join(
        _reliability(title, calibration["reliability"][key])
        for key, title in (("before", "Raw confidence"), ("after", "Calibrated confidence"))
    )
    return (
        "<section id='calibration'><h2>Can the labels be trusted?</h2>"
        f"<p class='verdict {tone}'>{text(calibration['sentence'], longest=2000)}</p>"
        f"<p class='note'>Measured on {_images(expected['images'])} with masks, {how}. Intervals "
        f"hold {100 * expected['level']:.0f} % of resamples of the images.</p>"
        f"{_classes(calibration)}<h3>Does the confidence mean what it says?</h3>"
        f"<div class='reliability'>{charts}</div>"
        "<p class='note'>On the dashed line, pixels with a confidence of 0.8 are right 80 % of "
        "the time; below it the labels are surer than they should be. Points: the mean distance "
        "from that line.</p></section>"
    )


def expected_miou(calibration: Mapping[str, Any]) -> tuple[str, str]:
    """Return the expected mIoU and its interval as plain text, the interval empty without one."""
    found = _estimate(calibration["expected"], "miou")
    return found.share, found.spread


@dataclass(frozen=True, kw_only=True, slots=True)
class _Estimate:
    """A share in [0, 1] with its interval, None where it is not known."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def share(self) -> str:
        return "not known" if self.value is None else f"{100 * self.value:.0f} %"

    @property
    def spread(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"{100 * self.low:.0f} to {100 * self.high:.0f} %"

    @property
    def cells(self) -> str:
        """A bar with its interval, the share and the interval as table cells."""
        mark = ""
        if self.low is not None and self.high is not None:
            width = max(0.5, 100 * (self.high - self.low))
            mark = (
                f"<span class='spread' style='left:{100 * self.low:.1f}%;width:{width:.1f}%'>"
                "</span>"
            )
        bar = f"<span class='bar' style='width:{100 * (self.value or 0):.1f}%'></span>"
        return (
            f"<td><span class='track'>{bar}{mark}</span></td>"
            f"<td>{text(self.share)}</td><td>{text(self.spread)}</td>"
        )


def _estimate(values: Mapping[str, Any], key: str) -> _Estimate:
    return _Estimate(value=values[key], low=values["low"], high=values["high"])


def _images(number: int) -> str:
    return "1 photo" if number == 1 else f"{number} photos"


def _classes(calibration: Mapping[str, Any]) -> str:
    """Return the table of what to expect of each class; thresholds only where they differ."""
    own: Mapping[str, float] = calibration["class_thresholds"]
    common = calibration["decision"]["threshold"]
    expected = calibration["expected"]

    def row(name: str, cells: str, threshold: str) -> str:
        last = f"<td>{threshold}</td>" if own else ""
        return f"<tr><td>{text(name, longest=60)}</td>{cells}{last}</tr>"

    rows = [row("mean over classes", _estimate(expected, "miou").cells, "")]
    for name, found in expected["iou"].items():
        rows.append(row(name, _estimate(found, "iou").cells, f"{own.get(name, common):.3f}"))
    for name in expected["unmeasured"]:
        nothing = "<td></td><td>in no mask</td><td></td>"
        rows.append(row(name, nothing, f"{own.get(name, common):.3f}"))
    heading = "<th>Threshold</th>" if own else ""
    return (
        "<table class='wide classes expected'><thead><tr><th>Class</th><th></th>"
        f"<th>Expected IoU</th><th>Interval</th>{heading}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _reliability(title: str, found: Mapping[str, Any]) -> str:
    """Return one reliability diagram: a dot per bin, its area by the share of pixels."""
    bins: Sequence[Mapping[str, Any]] = [b for b in found["reliability"] if b["pixels"]]
    total = sum(entry["pixels"] for entry in bins) or 1
    points = [(_x(entry["confidence"]), _y(entry["accuracy"])) for entry in bins]
    dots = "".join(
        f"<circle class='dot' cx='{x:.1f}' cy='{y:.1f}' "
        f"r='{2.5 + 7 * (entry['pixels'] / total) ** 0.5:.1f}'/>"
        for (x, y), entry in zip(points, bins, strict=True)
    )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    ece = "" if found["ece"] is None else f": off by {100 * found['ece']:.1f} points"
    heading = text(f"{title}{ece}")
    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    return (
        f"<figure><figcaption>{heading}</figcaption>"
        f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='{heading}'>"
        f"{_axes()}<polyline class='curve' points='{line}'/>{dots}</svg></figure>"
    )


def _axes() -> str:
    right, bottom, middle = _LEFT + _SIDE, _TOP + _SIDE, _TOP + _SIDE / 2
    parts = []
    for step in range(5):
        x, y, mark = _x(step / 4), _y(step / 4), f"{step / 4:g}"
        parts.append(
            f"<line class='grid' x1='{x:g}' y1='{bottom}' x2='{x:g}' y2='{_TOP}'/>"
            f"<line class='grid' x1='{_LEFT}' y1='{y:g}' x2='{right}' y2='{y:g}'/>"
            f"<text x='{x:g}' y='{bottom + 16}' text-anchor='middle'>{mark}</text>"
            f"<text x='{_LEFT - 6}' y='{y + 4:g}' text-anchor='end'>{mark}</text>"
        )
    parts.append(
        f"<line class='honest' x1='{_LEFT}' y1='{bottom}' x2='{right}' y2='{_TOP}'/>"
        f"<text x='{_LEFT + _SIDE / 2:g}' y='{bottom + 34}' text-anchor='middle'>confidence</text>"
        f"<text x='12' y='{middle:g}' text-anchor='middle' "
        f"transform='rotate(-90 12 {middle:g})'>share that is right</text>"
    )
    return "".join(parts)


def _x(share: float) -> float:
    return _LEFT + share * _SIDE


def _y(share: float) -> float:
    return _TOP + (1 - share) * _SIDE
