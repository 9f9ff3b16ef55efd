"""A table of text: fitted to a width, and written as plain text, Markdown, LaTeX or HTML."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwcost.explain_text import GAP, aligned, folded

#: Where nothing more can be left out, cells that may be shortened keep this many characters.
LEAST = 8


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        cells: text of shape ``(rows,)``.
        right: whether it is a number.
        rank: 0 stays at any width; where the width is short, the highest goes first.
        short: a narrower title for narrow terminals.
        least: characters that long cells keep when they lose their middle; 0 if they may not.
        narrow: shorter cells, taken together with the narrower title; without one, where
            nothing more can be left out.
    """

    title: str
    cells: Sequence[str]
    right: bool = False
    rank: int = 0
    short: str = ""
    least: int = 0
    narrow: Sequence[str] = ()

    @property
    def width(self) -> int:
        """Characters of the widest cell, the title included."""
        return max(map(len, (self.title, *self.cells)))


@dataclass(frozen=True)
class Sheet:
    """Lines above, a table, lines below.

    Attributes:
        facts: (what, text) above the table.
        starts: rows before which a rule is drawn.
        results: (what, text) below the table.
        notes: lines at the end.
    """

    title: str
    columns: Sequence[Column]
    facts: Sequence[tuple[str, str]] = ()
    starts: Sequence[int] = ()
    results: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells by row."""
        return list(zip(*(c.cells for c in self.columns), strict=True))


def fit(columns: Sequence[Column], width: int, gap: int = GAP) -> tuple[list[Column], list[str]]:
    """Return columns that fit into ``width``, and the titles of those left out.

    Titles are abbreviated first, of no more columns than need be, then cells that may be
    shortened, then columns are left out.
    """
    kept, dropped = list(columns), list[str]()
    while _total(kept, gap) > width:
        abbreviated = _abbreviated(kept, width, gap)
        shrunk = _shrunk(abbreviated, _total(abbreviated, gap) - width)
        if _total(shrunk, gap) <= width:
            return shrunk, dropped
        # The last of equals: what stands beside a value goes before the value.
        worst = max(reversed(kept), key=lambda c: c.rank)
        if worst.rank == 0:
            least = [replace(_narrow(c), least=min(c.least, LEAST)) for c in abbreviated]
            over = _total(least, gap) - width
            shrunk = _shrunk(least, over)
            fits = _total(shrunk, gap) <= width
            return shrunk if fits else _shrunk(least, over, distinct=False), dropped
        kept.remove(worst)
        dropped.append(worst.title)
    return kept, dropped


def _abbreviated(columns: Sequence[Column], width: int, gap: int) -> list[Column]:
    """The columns with narrower titles and cells, those that stay longest as the last."""
    result = list(columns)
    for index in sorted(range(len(columns)), key=lambda i: -columns[i].rank):
        if _total(result, gap) <= width:
            break
        if result[index].short:
            result[index] = _narrow(result[index])
    return result


def _narrow(column: Column) -> Column:
    cells = column.narrow or column.cells
    return replace(column, title=column.short or column.title, cells=cells)


def _total(columns: Sequence[Column], gap: int) -> int:
    return sum(c.width for c in columns) + gap * (len(columns) - 1)


def _shrunk(columns: Sequence[Column], over: int, distinct: bool = True) -> list[Column]:
    """The columns with ``over`` characters less, or as many less as they may lose."""
    result = []
    for column in columns:
        if column.least and over > 0:
            allowed = min(column.width, max(column.width - over, column.least, len(column.title)))
            allowed = _distinct_width(column.cells, allowed) if distinct else allowed
            over -= column.width - allowed
            column = replace(column, cells=[shorten(cell, allowed) for cell in column.cells])
        result.append(column)
    return result


def _distinct_width(cells: Sequence[str], least: int) -> int:
    """The least width, not below ``least``, at which different cells stay different."""
    different = set(cells)
    widths = range(least, max(map(len, cells), default=least))
    enough = (w for w in widths if len({shorten(cell, w) for cell in different}) == len(different))
    return next(enough, max(least, widths.stop))


def shorten(text: str, width: int) -> str:
    """Return ``text`` with its middle replaced by ``..`` where it is longer than ``width``."""
    if len(text) <= width:
        return text
    tail = (width - 2 + 1) // 2
    return f"{text[: width - 2 - tail]}..{text[-tail:]}"


def plain(sheet: Sheet, width: int | None = None) -> str:
    """Return aligned text without colours or boxes; ``width`` None for as wide as it needs."""
    columns, dropped = (list(sheet.columns), list[str]())
    if width is not None:
        columns, dropped = fit(columns, width)
    lines = [*folded(sheet.title, width)] if sheet.title else []
    lines += aligned(sheet.facts, width)
    if columns and lines:
        lines.append("")
    lines += _grid(columns, sheet.starts)
    lines += ["", *aligned(sheet.results, width)] if sheet.results else []
    notes = [*sheet.notes, *left_out(dropped)]
    lines += ["", *(line for note in notes for line in folded(note, width))] if notes else []
    return "\n".join(lines)


def left_out(titles: Sequence[str]) -> list[str]:
    """Return the line that says which columns a narrow terminal left out."""
    return [f"left out at this width: {', '.join(titles)}"] if titles else []


def _grid(columns: Sequence[Column], starts: Sequence[int]) -> list[str]:
    if not columns:
        return []
    widths = [c.width for c in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        )
        return (" " * GAP).join(padded).rstrip()

    lines = [line([c.title for c in columns]), line(["-" * w for w in widths])]
    for index, row in enumerate(zip(*(c.cells for c in columns), strict=True)):
        lines += [""] if index in starts and index else []
        lines.append(line(row))
    return lines


def markdown(sheet: Sheet) -> str:
    """Return the sheet as a Markdown table between its lines."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("\\", "\\\\").replace("|", "\\|") for c in cells) + " |"

    rule = "|" + "|".join("---:" if c.right else "---" for c in sheet.columns) + "|"
    parts = [f"**{sheet.title}**", ""] if sheet.title else []
    parts += _bullets(sheet.facts)
    parts += [line([c.title for c in sheet.columns]), rule, *map(line, sheet.rows)]
    parts += ["", *_bullets(sheet.results)[:-1]] if sheet.results else []
    parts += ["", *(f"{note}  " for note in sheet.notes)] if sheet.notes else []
    return "\n".join(parts) + "\n"


def _bullets(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [*(f"- {what}: {text}" for what, text in pairs), ""] if pairs else []


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "µ": r"\textmu{}",
    "±": r"$\pm$",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def tex(text: str) -> str:
    """Return ``text`` with LaTeX's special characters escaped."""
    arrows = text.split(" -> ")
    return r" $\rightarrow$ ".join("".join(_TEX.get(c, c) for c in part) for part in arrows)


def latex(sheet: Sheet) -> str:
    """Return the sheet as a LaTeX ``tabular`` that needs no package; its lines are comments."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(tex, cells)) + r" \\"

    body = [r"\hline", line([c.title for c in sheet.columns]), r"\hline"]
    for index, row in enumerate(sheet.rows):
        body += [r"\hline"] if index in sheet.starts and index else []
        body.append(line(row))
    pairs = [f"{what}: {text}" for what, text in (*sheet.facts, *sheet.results)]
    above = [f"% {text}" for text in (sheet.title, *pairs, *sheet.notes) if text]
    align = "".join("r" if c.right else "l" for c in sheet.columns)
    return "\n".join(
        [*above, rf"\begin{{tabular}}{{{align}}}", *body, r"\hline", r"\end{tabular}", ""]
    )


def as_html(sheet: Sheet) -> str:
    """Return the sheet as an HTML fragment: a caption, a table, a list of results."""

    def cell(tag: str, text: str, right: bool) -> str:
        style = ' style="text-align: right"' if right else ' style="text-align: left"'
        return f"<{tag}{style}>{html.escape(text)}</{tag}>"

    def row(tag: str, cells: Sequence[str]) -> str:
        pairs = zip(cells, sheet.columns, strict=True)
        return "<tr>" + "".join(cell(tag, text, column.right) for text, column in pairs) + "</tr>"

    head = row("th", [c.title for c in sheet.columns])
    body = "\n".join(row("td", cells) for cells in sheet.rows)
    parts = [f"<p><b>{html.escape(sheet.title)}</b></p>"] if sheet.title else []
    parts += _html_pairs(sheet.facts)
    parts.append(f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>")
    parts += _html_pairs(sheet.results)
    parts += [f"<p>{html.escape(note)}</p>" for note in sheet.notes]
    return "\n".join(parts) + "\n"


def _html_pairs(pairs: Sequence[tuple[str, str]]) -> list[str]:
    items = (f"<li>{html.escape(what)}: {html.escape(text)}</li>" for what, text in pairs)
    return [f"<ul>{''.join(items)}</ul>"] if pairs else []
