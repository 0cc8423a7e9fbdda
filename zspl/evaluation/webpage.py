"""One HTML file that can be mailed: its look, and pictures inside it."""

import base64
from html import escape
from string import Template
from typing import Literal

_DOCUMENT = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --faint: #59616b;
  --line: #d8dce1; --raised: #f6f7f9; --bad: #a40000; --good: #00664a; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e4e7eb;
  --faint: #9aa3ad; --line: #343a42; --raised: #1d2126; --bad: #ff8a80; --good: #5fd3ab;
  --accent: #6bb8ea; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 72rem; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto; overflow-wrap: normal; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { border-bottom: 2px solid var(--faint); }
img { max-width: 100%; }
.note, .missing { color: var(--faint); font-size: .9em; margin: .3rem 0; }
.missing { color: var(--bad); }
$style</style>
</head>
<body>
$body
</body>
</html>
""")


def document(title: str, body: str, *, style: str = "") -> str:
    """Return a whole page, light or dark as the reader's system is.

    Args:
        title: Plain text.
        body: HTML.
        style: CSS rules of this page, after those of every page.
    """
    return _DOCUMENT.substitute(title=escape(title), body=body, style=style)


def picture(content: bytes, *, text: str, kind: Literal["png", "jpeg", "svg+xml"] = "png") -> str:
    """Return an image tag with the file inside; `text` speaks for it where it is not seen."""
    data = base64.b64encode(content).decode()
    return f"<img alt='{escape(text)}' src='data:image/{kind};base64,{data}'>"
