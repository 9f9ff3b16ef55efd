"""A sheet drawn by rich: bold titles, dim rules, fitted to the terminal."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hwcost.reports_format import Column, Sheet, fit, left_out


def renderables(sheet: Sheet, width: int) -> Iterator[RenderableType]:
    """Yield the parts of a sheet, none wider than ``width``."""
    if sheet.title:
        yield Text(sheet.title, style="bold")
    if sheet.facts:
        yield _pairs(sheet.facts, width)
    # The frame takes three characters.
    columns, dropped = fit(sheet.columns, width - 3)
    if columns:
        yield _table(columns, sheet.starts)
    if sheet.results:
        yield _pairs(sheet.results, width, "bold")
    for note in (*sheet.notes, *left_out(dropped)):
        yield Padding(Text(note, style="dim"), (0, 0, 0, 1))


def _pairs(pairs: Sequence[tuple[str, str]], width: int, style: str = "") -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(style=style, overflow="fold")
    for what, text in pairs:
        grid.add_row(Text(f" {what}"), Text(text))
    return grid


def _table(columns: Sequence[Column], starts: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        justify = "right" if column.right else "left"
        table.add_column(Text(column.title), justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    for index, row in enumerate(zip(*(c.cells for c in columns), strict=True)):
        if index in starts and index:
            table.add_section()
        table.add_row(*(Text(cell) for cell in row))
    return table
