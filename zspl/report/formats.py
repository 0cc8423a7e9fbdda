"""One table as CSV, Markdown, LaTeX, HTML and aligned text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from zspl.io import atomic

ABSENT = "—"

_LONG = 40
"""Rows above which a LaTeX table may break across pages."""

_TEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "—": "--", "≥": r"$\geq$", "<": r"\textless{}",
    ">": r"\textgreater{}", "…": r"\ldots{}",
}  # fmt: skip
_TEX_SPECIAL = re.compile("|".join(map(re.escape, _TEX)))
_NUMBER = re.compile(r"[+-]?\d")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One comparison: `display` for people (text), `numbers` for programs.

    The first `headings` columns of `display` name a row; the others hold what is known of it.
    """

    name: str
    title: str
    display: pd.DataFrame
    numbers: pd.DataFrame
    notes: tuple[str, ...] = ()
    headings: int = 1


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write a table as CSV (numbers), Markdown and LaTeX (for people) and return the paths."""
    contents = {
        "csv": table.numbers.to_csv(index=False, float_format="%.4f", lineterminator="\n"),
        "md": markdown(table),
        "tex": latex(table),
    }
    paths = [folder / f"{table.name}.{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        atomic.write_text(path, content)
    return paths


def markdown(table: Table) -> str:
    """Return a table as Markdown with its title and notes."""
    body = table.display.to_markdown(index=False, disable_numparse=True)
    return "\n\n".join([f"## {table.title}", body, *table.notes]) + "\n"


def terminal(table: Table) -> str:
    """Return a table as aligned text with its title and notes."""
    body = table.display.to_markdown(index=False, tablefmt="simple", disable_numparse=True)
    return "\n".join([table.title, "", body, "", *table.notes]) + "\n"


def latex(table: Table) -> str:
    r"""Return a table as LaTeX to `\input`; it needs booktabs, and longtable where it is long."""
    columns, rows = list(table.display.columns), table.display.to_numpy().tolist()
    right = "r" * (len(columns) - table.headings)
    kinds = f"@{{}}{'l' * table.headings}{right}@{{}}"
    lines = [_tex_row(columns), *(_tex_row(row) for row in rows)]
    caption = f"\\caption{{{tex(' '.join([table.title + '.', *table.notes]))}}}"
    label = f"\\label{{tab:{table.name.replace('_', '-')}}}"
    head = f"\\toprule\n{lines[0]}\n\\midrule"
    body = "\n".join(lines[1:])
    if len(rows) > _LONG:
        needs, begin, end = "booktabs, longtable", "longtable", "\\end{longtable}"
        opening = f"\\begin{{{begin}}}{{{kinds}}}\n{caption}\n{label}\\\\"
        return (
            f"% needs {needs}\n{{\\footnotesize\n{opening}\n{head}\n\\endfirsthead\n{head}\n"
            f"\\endhead\n{body}\n\\bottomrule\n{end}}}\n"
        )
    return (
        f"% needs booktabs\n\\begin{{table}}\n\\centering\\footnotesize\n{caption}\n{label}\n"
        f"\\begin{{tabular}}{{{kinds}}}\n{head}\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
        "\\end{table}\n"
    )


def _tex_row(cells: Sequence[object]) -> str:
    return " & ".join(tex(str(cell)) for cell in cells) + r" \\"


def tex(text: str) -> str:
    r"""Return text with what LaTeX would take for commands escaped.

    Example:
        >>> tex("sam_gem: 50 % ± 2")
        'sam\\_gem: 50 \\% $\\pm$ 2'
    """
    return _TEX_SPECIAL.sub(lambda found: _TEX[found.group()], text)


def html(table: Table, *, level: int = 3) -> str:
    """Return a table as an HTML section; it scrolls inside its box where the page is narrow.

    Args:
        table: What to show; numbers stand right, so that they can be compared.
        level: Of the heading, 2 to 6.
    """
    columns = list(table.display.columns)
    rows = [[str(cell) for cell in row] for row in table.display.to_numpy().tolist()]
    kinds = [_right(index, rows, table.headings) for index in range(len(columns))]
    head = "".join(
        f"<th scope='col'{kind}>{escape(str(name))}</th>"
        for name, kind in zip(columns, kinds, strict=True)
    )
    body = "\n".join(f"<tr>{_html_row(row, kinds, table.headings)}</tr>" for row in rows)
    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in table.notes)
    title = escape(table.title)
    return (
        f"<section id='{table.name}'><h{level} id='{table.name}-title'>{title}</h{level}>\n"
        f"<div class='scroll' role='region' tabindex='0' aria-labelledby='{table.name}-title'>"
        f"<table><caption>{title}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>\n{notes}</section>"
    )


def _right(index: int, rows: list[list[str]], headings: int) -> str:
    """Return the attribute of a column that holds numbers, nothing for one that holds words."""
    shown = [row[index] for row in rows if row[index] not in ("", ABSENT)]
    return " class='n'" if index >= headings and all(map(_NUMBER.match, shown)) else ""


def _html_row(row: list[str], kinds: list[str], headings: int) -> str:
    return "".join(
        f"<th scope='row'>{escape(cell)}</th>"
        if index < headings
        else f"<td{kind}>{escape(cell)}</td>"
        for index, (cell, kind) in enumerate(zip(row, kinds, strict=True))
    )


def duration(seconds: float) -> str:
    """Return a time in the unit that reads best.

    Example:
        >>> duration(4.04), duration(90.0), duration(5400.0), duration(400_000.0)
        ('4.0 s', '1.5 min', '1.5 h', '111 h')
    """
    if seconds < 59.95:  # noqa: PLR2004 - what is not rounded to a minute
        return f"{seconds:.1f} s"
    if seconds < 3597:  # noqa: PLR2004 - what is not rounded to an hour
        return f"{seconds / 60:.1f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"  # noqa: PLR2004 - three digits
