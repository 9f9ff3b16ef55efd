"""What all reports share: text on any width, and export to files and frames."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwcost.errors import MissingLibrary, UnknownName, suggestion
from hwcost.platform import Metric
from hwcost.reports_format import Sheet, as_html, latex, markdown, plain

if TYPE_CHECKING:
    import pandas as pd

#: Suffix of a file -> format.
SUFFIXES = {
    ".csv": "csv",
    ".md": "md",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
    ".json": "json",
    ".parquet": "parquet",
    ".txt": "text",
}
FORMATS = ("text", "md", "csv", "latex", "html", "json", "parquet")

_UNIT_NAMES = {"s": "s", "J": "j", "B": "bytes", "cycle": "cycle", "op": "op", "1": ""}


def column_name(metric: Metric) -> str:
    """Return the name of a metric's column of raw numbers, its SI unit included: ``latency_s``."""
    unit = str(metric.unit.dimension)
    named = _UNIT_NAMES.get(unit)
    if named is None:
        named = unit.lower().replace("/", "_per_").replace("*", "_").replace("^", "")
    return (
        metric.name if not named or metric.name.endswith(f"_{named}") else f"{metric.name}_{named}"
    )


def si(metric: Metric) -> float:
    """Return what one unit of a metric is in SI base units."""
    return float(metric.unit.value)


class Tabular(ABC):
    """A report: a sheet of text for people, columns of numbers for programs."""

    @abstractmethod
    def sheet(self) -> Sheet:
        """Return the report as text."""

    @abstractmethod
    def columns(self) -> Mapping[str, Any]:
        """Return the columns of raw numbers in SI units, by name; shape ``(rows,)``."""

    def to_frame(self) -> "pd.DataFrame":
        """Return a pandas frame of raw numbers in SI units; the unit ends a column's name."""
        import pandas as pd

        return pd.DataFrame(dict(self.columns()))

    def to_csv(self) -> str:
        """Return the frame as CSV."""
        return str(self.to_frame().to_csv(index=False, lineterminator="\n"))

    def to_json(self) -> str:
        """Return the raw numbers as JSON, NaN as null."""
        import json

        return json.dumps(jsonable(self.to_dict()), indent=2, allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the raw numbers as plain data."""
        columns = self.columns()
        rows = zip(*(list(c) for c in columns.values()), strict=True)
        return {"rows": [dict(zip(columns, row, strict=True)) for row in rows]}

    def to_markdown(self) -> str:
        """Return a Markdown table, numbers in engineering units."""
        return markdown(self.sheet())

    def to_latex(self) -> str:
        """Return a LaTeX tabular, numbers in engineering units."""
        return latex(self.sheet())

    def to_html(self) -> str:
        """Return an HTML fragment, numbers in engineering units."""
        return as_html(self.sheet())

    def to_text(self, width: int | None = None) -> str:
        """Return aligned text, fitted to ``width`` characters if given."""
        return plain(self.sheet(), width)

    def write(self, path: str | Path, format: str | None = None) -> None:
        """Write a file; its suffix names the format unless ``format`` does.

        Raises:
            UnknownName: an unknown format.
            MissingLibrary: ``parquet`` without pyarrow.
        """
        path = Path(path)
        format = format or format_of(path)
        if format == "parquet":
            self._write_parquet(path)
            return
        path.write_text(self.formatted(format), encoding="utf-8")

    def formatted(self, format: str) -> str:
        """Return the report as text in one of the formats ``text md csv latex html json``."""
        writers = {
            "text": self.to_text,
            "md": self.to_markdown,
            "csv": self.to_csv,
            "latex": self.to_latex,
            "html": self.to_html,
            "json": self.to_json,
        }
        if format == "parquet":
            raise UnknownName("parquet is not text; write it to a file, -o on the command line")
        if format not in writers:
            hint = suggestion(format, FORMATS)
            raise UnknownName(f"no format {format!r}{hint}")
        text = writers[format]()
        return text if text.endswith("\n") else text + "\n"

    def _write_parquet(self, path: Path) -> None:
        require_pyarrow()
        self.to_frame().to_parquet(path, index=False)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return self.to_html()

    def __rich__(self) -> "ForTerminal":
        return ForTerminal(self.sheet())


def format_of(path: Path) -> str:
    """Return the format that a file's suffix stands for.

    Raises:
        UnknownName: none does.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UnknownName(
            f"the suffix of {path.name!r} names no format; known: {', '.join(SUFFIXES)}"
        )
    return SUFFIXES[suffix]


def require_pyarrow() -> None:
    """Raise where pyarrow is missing.

    Raises:
        MissingLibrary: says what to install.
    """
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise MissingLibrary(
            "parquet needs pyarrow, which is not installed: pip install 'hwcost[parquet]'"
        )


def jsonable(value: Any) -> Any:
    """Return plain data that JSON can hold: NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Sequence) or hasattr(value, "tolist"):
        items = value.tolist() if hasattr(value, "tolist") else value
        return (
            [jsonable(item) for item in items] if isinstance(items, Sequence) else jsonable(items)
        )
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class ForTerminal:
    """A sheet that rich draws at the width it has."""

    sheet: Sheet

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from hwcost.reports_rich import renderables

        yield from renderables(self.sheet, options.max_width)
