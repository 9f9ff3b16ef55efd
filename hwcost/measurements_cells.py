"""Cells of a file of measurements: header names, units and numbers, with the line in errors."""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hwcost.errors import FitError, UnitError, did_you_mean
from hwcost.ops import SIZES
from hwcost.units import Dimension, parse_unit

#: Columns of text.
TEXTS: dict[str, str] = {
    "net": "network that the row belongs to",
    "layer": "layer; empty in a row that stands for a whole network",
    "kind": "kind of op; empty in a row that stands for a whole network",
    "engine": "engine that ran it; the best one where empty",
    "point": "operating point; the default one where empty",
    "source": "where the measurement comes from",
    "software": "kernels, compiler and versions",
    "conditions": "how it was measured",
    "date": "day of the measurement",
    "note": "anything else",
}
#: Columns of numbers that a fit does not read.
REMARKS = ("spread",)

_TITLE = re.compile(r"\s*([^\[\]]*?)\s*(?:\[\s*([^\[\]]+?)\s*\])?\s*")


@dataclass(frozen=True)
class Line:
    """A line of the file: its number, texts by column, and numbers in SI base units.

    Attributes:
        at: ``file:line``, for messages.
    """

    at: str
    texts: Mapping[str, str]
    sizes: Mapping[str, float]
    measured: Mapping[str, float]

    def text(self, name: str) -> str:
        """Return a column's text, empty where the file does not have the column."""
        return self.texts.get(name, "")


@dataclass(frozen=True)
class _Column:
    """A column: its name and what one of its units is in SI."""

    name: str
    scale: float


def read_lines(path: Path, metrics: Mapping[str, Dimension]) -> list[Line]:
    """Return the lines of a CSV file.

    Args:
        metrics: columns of measured values -> their dimension.

    Raises:
        FitError: the file cannot be read, or a column, unit or number is wrong; the message
            starts with ``file:line``.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_lines(csv.reader(file, strict=True), path.name, metrics))
    except OSError as error:
        raise FitError(f"{path.name}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise FitError(f"{path.name}: not UTF-8 text") from None


def _lines(
    rows: Iterator[list[str]], name: str, metrics: Mapping[str, Dimension]
) -> Iterator[Line]:
    columns: list[_Column] | None = None
    number = 0
    try:
        for row in rows:
            # A quoted cell may go over several lines; the row is where it starts.
            number, first = rows.line_num, number + 1  # type: ignore[attr-defined]
            at = f"{name}:{first}"
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = _header(row, at, metrics)
            else:
                yield _line(row, columns, at, metrics)
    except csv.Error as error:
        raise FitError(f"{name}:{number + 1}: {error}") from None
    if columns is None:
        raise FitError(f"{name}: the file is empty")


def _header(titles: list[str], at: str, metrics: Mapping[str, Dimension]) -> list[_Column]:
    columns: list[_Column] = []
    for title in titles:
        found = _column(title, at, metrics)
        if found.name in [column.name for column in columns]:
            raise FitError(f"{at}: column {found.name!r} is given twice")
        columns.append(found)
    return columns


def _column(title: str, at: str, metrics: Mapping[str, Dimension]) -> _Column:
    match = _TITLE.fullmatch(title)
    name, unit = match.groups() if match else (title.strip(), None)
    known = [*TEXTS, *metrics, *SIZES, *REMARKS]
    if name not in known:
        raise FitError(f"{at}: unknown column {name!r}{_hint(name, known, metrics)}")
    if unit is None:
        return _Column(name, 1.0)
    if name not in metrics:
        raise FitError(f"{at}: column {name!r} has unit {unit!r}; only measured values have one")
    try:
        parsed = parse_unit(unit)
    except UnitError as error:
        raise FitError(f"{at}: column {name!r}: {error}") from None
    if parsed.dimension != metrics[name]:
        raise FitError(f"{at}: column {name!r} is in {parsed.dimension}; expected {metrics[name]}")
    return _Column(name, float(parsed.value))


def _hint(name: str, known: list[str], metrics: Mapping[str, Dimension]) -> str:
    metric, _, unit = name.partition("_")
    if metric in metrics and unit:
        return f"; a unit stands in brackets: '{metric} [{unit}]'"
    return did_you_mean(name, known)


def _line(
    row: list[str], columns: list[_Column], at: str, metrics: Mapping[str, Dimension]
) -> Line:
    if len(row) != len(columns):
        raise FitError(f"{at}: {len(row)} cells; the header has {len(columns)}")
    texts: dict[str, str] = {}
    sizes: dict[str, float] = {}
    measured: dict[str, float] = {}
    for column, cell in zip(columns, (cell.strip() for cell in row), strict=True):
        if column.name in TEXTS:
            texts[column.name] = cell
        elif cell and column.name in metrics:
            measured[column.name] = _number(column, cell, at, above=0) * column.scale
        elif cell and column.name in SIZES:
            sizes[column.name] = _number(column, cell, at)
    return Line(at, texts, sizes, measured)


def _number(column: _Column, cell: str, at: str, above: float | None = None) -> float:
    try:
        value = float(cell)
    except ValueError:
        unit = f"; a unit stands in the header: '{column.name} [ms]'" * (above is not None)
        raise FitError(f"{at}: {column.name!r} is {cell!r}; expected a number{unit}") from None
    if not math.isfinite(value):
        raise FitError(f"{at}: {column.name!r} is {cell!r}; leave a cell empty that has no value")
    if value < 0 or (above is not None and value <= above):
        due = "more than 0" if above is not None else "0 or more"
        raise FitError(f"{at}: {column.name!r} is {cell}; expected {due}")
    return value
