"""Cells of a file of measurements: header names, units and numbers, with the line in errors."""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hwcost.errors import FitError, UnitError, did_you_mean
from hwcost.measurements_numbers import measured_number, number, size_number
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
    "function": "what torch calls the op",
}
#: Columns of numbers that a fit does not read; ``hwcost trace`` writes the last two.
REMARKS = ("spread", "macs", "params")

#: A column of every table of predictions.
_OF_PREDICTIONS = "status"

#: What others call a column -> its name.
_ALSO = {
    "op": "kind",
    "type": "kind",
    "op_type": "kind",
    "name": "layer",
    "model": "net",
    "network": "net",
    "time": "latency",
    "runtime": "latency",
    "duration": "latency",
}

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
        raise FitError(f"{path.name or path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise FitError(f"{path.name}: not UTF-8 text; save it as CSV UTF-8") from None


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
    while not titles[-1].strip():
        titles = titles[:-1]
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(titles) == 1 and sign in titles[0]:
            raise FitError(f"{at}: columns are separated by {name}; expected commas")
    if _OF_PREDICTIONS in titles:
        raise FitError(
            f"{at}: column {_OF_PREDICTIONS!r} is one of a table of predictions;"
            " hwcost trace MODEL -o ROWS.csv writes ops to put measured values to"
        )
    for title in titles:
        found = _column(title, at, metrics) if title.strip() else _Column("", 1.0)
        if found.name and found.name in [column.name for column in columns]:
            raise FitError(f"{at}: column {found.name!r} is given twice")
        columns.append(found)
    return columns


def _column(title: str, at: str, metrics: Mapping[str, Dimension]) -> _Column:
    match = _TITLE.fullmatch(title)
    name, unit = match.groups() if match else (title.strip(), None)
    known = [*TEXTS, *metrics, *SIZES, *REMARKS]
    if name not in known:
        raise FitError(f"{at}: unknown column {name!r}{_hint(title, known, metrics)}")
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


def _hint(title: str, known: list[str], metrics: Mapping[str, Dimension]) -> str:
    for metric in metrics:
        rest = re.fullmatch(rf"\s*{metric}[\s_(:/]+(\S+?)\)?\s*", title, re.IGNORECASE)
        if rest:
            return f"; a unit stands in brackets: '{metric} [{rest[1]}]'"
    also = _ALSO.get(title.partition("[")[0].strip().lower())
    if also in known:
        return f"; did you mean {also!r}?"
    return did_you_mean(title, known) or f"; measured are {', '.join(metrics)}"


def _line(
    row: list[str], columns: list[_Column], at: str, metrics: Mapping[str, Dimension]
) -> Line:
    texts: dict[str, str] = {}
    sizes: dict[str, float] = {}
    measured: dict[str, float] = {}
    for column, cell in zip(columns, _cells(row, columns, at), strict=True):
        if column.name in TEXTS:
            texts[column.name] = cell
        elif cell and column.name in metrics:
            measured[column.name] = measured_number(column.name, cell, at) * column.scale
        elif cell and column.name in SIZES:
            sizes[column.name] = size_number(column.name, cell, at)
        elif cell and column.name in REMARKS and not cell.endswith("%"):
            number(column.name, cell, at)
    return Line(at, texts, sizes, measured)


def _cells(row: list[str], columns: list[_Column], at: str) -> list[str]:
    """The cells of a row, without those behind the last column, which must be empty."""
    cells = [cell.strip() for cell in row]
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        raise FitError(f"{at}: {len(row)} cells; the header has {len(columns)}")
    cells = cells[: len(columns)]
    for place, (column, cell) in enumerate(zip(columns, cells, strict=True), 1):
        if cell and not column.name:
            raise FitError(f"{at}: {cell!r} stands in column {place}, which has no name")
    return cells
