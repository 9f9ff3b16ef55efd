"""Cost tables: one row for each op and platform, a column for each size and metric."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hwcost.calibration_reach import error_text
from hwcost.offers import STATUSES
from hwcost.ops import BITS, SIZES
from hwcost.platform import Metric
from hwcost.reports_format import Column, Sheet, as_html, plain
from hwcost.reports_parts import BLOCK, Part
from hwcost.reports_tabular import ForTerminal, Tabular, column_name, require_pyarrow, si
from hwcost.structure import KIND_NAMES
from hwcost.units import engineering
from hwcost.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

#: Rows that plain text shows; the rest is counted.
MOST_SHOWN = 200


@dataclass(frozen=True, eq=False)
class CostTable(Tabular):
    """One row for each op of each network on each platform, raw numbers in SI units.

    Attributes:
        parts: networks on platforms, in the order of the rows.
    """

    parts: Sequence[Part]

    def __len__(self) -> int:
        return sum(len(part.workload) for part in self.parts)

    def __repr__(self) -> str:
        return f"CostTable({len(self)} rows)"

    def columns(self) -> Mapping[str, Any]:
        """Return the frame's columns."""
        return {str(name): column for name, column in self.to_frame().items()}

    def to_frame(self) -> "pd.DataFrame":
        """Return the whole table as a pandas frame."""
        import pandas as pd

        frames = list(self.frames(max(len(self), 1)))
        return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]

    def frames(self, rows: int = BLOCK) -> Iterator["pd.DataFrame"]:
        """Yield the table as frames of at most ``rows`` rows, all with the same columns."""
        names = self._names()
        for part in self.parts:
            for start in range(0, max(len(part.workload), 1), rows):
                yield self._frame(part, slice(start, start + rows), names)

    def to_csv(self) -> str:
        """Return the table as CSV."""
        return "".join(self._csv())

    def _csv(self) -> Iterator[str]:
        for index, frame in enumerate(self.frames()):
            yield whole_sizes(frame).to_csv(index=False, header=index == 0, lineterminator="\n")

    def to_dict(self) -> dict[str, Any]:
        """Return the rows as plain data."""
        return {"rows": self.to_frame().astype(object).to_dict("records")}

    def write(self, path: str | Path, format: str | None = None) -> None:
        """Write a file as ``Tabular.write`` does; CSV and Parquet block by block."""
        path = Path(path)
        if (format or path.suffix.lstrip(".").lower()) == "csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                file.writelines(self._csv())
        else:
            super().write(path, format)

    def _write_parquet(self, path: Path) -> None:
        require_pyarrow()
        pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")

        writer = None
        for frame in self.frames():
            block = pa.Table.from_pandas(_plain_text(frame), preserve_index=False)
            writer = writer or pq.ParquetWriter(path, block.schema)
            writer.write_table(block)
        assert writer is not None
        writer.close()

    def _names(self) -> list[str]:
        """The columns that some row uses, in the order of the table."""
        first, parts = self.parts[0], self.parts
        names = ["model"] if len({part.model for part in parts}) > 1 else []
        names += ["platform"]
        names += ["layer"] if any(_is_named(part.workload) for part in parts) else []
        names += ["kind", "engine", "status"]
        names += [n for n in SIZES if n not in BITS and any(_is_used(p.workload, n) for p in parts)]
        names += [n for n in BITS if n != "o_bits" or any(_differs(p.bits) for p in parts)]
        metrics = (column_name(part.metric(m)) for part in (first, *parts) for m in part.costs)
        return [*names, *dict.fromkeys(metrics), *self._errors()]

    def _frame(self, part: Part, rows: slice, names: Sequence[str]) -> "pd.DataFrame":
        import pandas as pd

        count = len(part.status[rows])
        data: dict[str, Any] = {}
        for name in names:
            data[name] = self._column(part, name, rows, count)
        return pd.DataFrame(data, copy=False)

    def _column(self, part: Part, name: str, rows: slice, count: int) -> Any:
        import pandas as pd

        def named(codes: Tensor, categories: Sequence[str]) -> Any:
            return pd.Categorical.from_codes(codes.numpy(), categories=pd.Index(categories))

        if name == "layer":
            return list(part.workload.layers[rows])
        if name in ("model", "platform"):
            every = list(dict.fromkeys(self._labels(p)[name] for p in self.parts))
            code = every.index(self._labels(part)[name])
            return named(torch.full((count,), code), every)
        if name == "kind":
            return named(part.workload.structure.kind_codes[rows], KIND_NAMES)
        if name == "engine":
            every = list(dict.fromkeys(e for p in self.parts for e in p.platform.engines))
            own = torch.tensor([*map(every.index, part.platform.engines), -1])
            return named(own[part.engine[rows]], every)
        if name == "status":
            return named(part.status[rows], STATUSES)
        if name in BITS:
            return part.bits[name][rows].numpy()
        if name in SIZES:
            return part.workload.column(name).detach()[rows].cpu().numpy()
        if name in self._errors():
            return self._error(part, name, count)
        return self._cost(part, name, rows, count)

    def _error(self, part: Part, column: str, count: int) -> Any:
        import pandas as pd

        metric, says_rows = self._errors()[column]
        error = part.error(metric)
        if not says_rows:
            share = math.nan if error is None else error.expected
            return torch.full((count,), share, dtype=torch.float64).numpy()
        every = list(dict.fromkeys(_rows_of(p, metric) for p in self.parts))
        code = torch.full((count,), every.index(_rows_of(part, metric)))
        return pd.Categorical.from_codes(code.numpy(), categories=pd.Index(every))

    def _labels(self, part: Part) -> dict[str, str]:
        return {"model": part.model, "platform": part.platform.name}

    def _errors(self) -> dict[str, tuple[str, bool]]:
        """Columns of the measured errors of layers -> metric, and whether it holds the rows."""
        metrics = dict.fromkeys(m for p in self.parts for m in p.costs if p.error(m))
        names = {f"{m}_error_p90": (m, False) for m in metrics}
        return names | {f"{m}_error_of": (m, True) for m in metrics}

    def _cost(self, part: Part, column: str, rows: slice, count: int) -> Any:
        for name, values in part.costs.items():
            metric = part.metric(name)
            if column_name(metric) == column:
                scale = si(metric)
                return (values[rows] if scale == 1 else values[rows] * scale).numpy()
        return torch.full((count,), float("nan"), dtype=torch.float64).numpy()

    def sheet(self) -> Sheet:
        """Return the table as text, all rows."""
        return self._sheet(len(self))

    def to_text(self, width: int | None = None) -> str:
        """Return aligned text of the first rows, fitted to ``width`` characters if given."""
        return plain(self._sheet(MOST_SHOWN), width)

    def __rich__(self) -> Any:
        return ForTerminal(self._sheet(MOST_SHOWN))

    def _repr_html_(self) -> str:
        return as_html(self._sheet(MOST_SHOWN))

    def _sheet(self, most: int) -> Sheet:
        frame = (
            next(self.frames(max(most, 1))) if len(self.parts) == 1 else self.to_frame().head(most)
        )
        units = {column_name(p.metric(m)): p.metric(m) for p in self.parts for m in p.costs}
        errors = self._errors()
        columns = [
            _text_column(str(name), frame[name].tolist(), units)
            for name in frame
            if name not in errors
        ]
        hidden = len(self) - len(frame)
        notes = [f"{hidden} more rows; --format csv or to_frame() gives all"] if hidden > 0 else []
        return Sheet("", columns, notes=notes + self._error_notes())

    def _error_notes(self) -> list[str]:
        """The measured error of a row, a line for each platform and metric, and the statuses."""
        found = [(p.platform, m, p.error(m)) for p in self.parts for m in p.costs]
        lines = [f"{m} on {p.name}: {error_text(e)} of a layer" for p, m, e in found if e]
        statuses = dict.fromkeys(f"{p.platform.name} {p.platform.status}" for p in self.parts)
        return [*dict.fromkeys(lines), f"status: {', '.join(statuses)}"]


def _text_column(name: str, values: list[Any], units: Mapping[str, Metric]) -> Column:
    if name in units:
        scale, unit = si(units[name]), units[name].unit.text
        cells = [engineering(v / scale, unit) for v in values]
        return Column(units[name].name, cells, True, rank=0 if name == next(iter(units)) else 1)
    if name in SIZES:
        return Column(name, ["" if v != v else f"{v:.10g}" for v in values], True, rank=2)
    cells = ["" if v is None or v != v else str(v) for v in values]
    return Column(
        name,
        cells,
        rank={"status": 3, "engine": 3, "kind": 1}.get(name, 0),
        least={"layer": 20, "model": 10, "platform": 12}.get(name, 0),
    )


def _rows_of(part: Part, metric: str) -> str:
    """What the measured error of a metric is over, such as ``45 layers``."""
    error = part.error(metric)
    return "" if error is None else f"{error.rows} {error.of}"


def _is_named(workload: Workload) -> bool:
    """Whether the rows have names of their own rather than numbers."""
    return isinstance(workload.layers, tuple | list)


def _is_used(workload: Workload, name: str) -> bool:
    """Whether some row has a size that is not the usual one."""
    column, usual = workload.column(name).detach(), SIZES[name].default
    # A size that is the same for all rows is an expanded scalar: look at it once.
    column = column[:1] if len(column) and column.stride(0) == 0 else column
    return bool((~column.isnan() & (column != usual if usual is not None else True)).any())


def _differs(bits: Mapping[str, Tensor]) -> bool:
    """Whether outputs have other bits than inputs."""
    return bool((bits["o_bits"].nan_to_num() != bits["a_bits"].nan_to_num()).any())


def whole_sizes(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return the frame with sizes that are whole numbers as integers: CSV says 3, not 3.0."""
    sizes = [name for name in frame.columns if name in SIZES]
    whole = [name for name in sizes if bool((frame[name].dropna() % 1 == 0).all())]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _plain_text(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Categories as dictionary-free text, so that all blocks have one schema."""
    categories = frame.select_dtypes("category").columns
    return frame.astype(dict.fromkeys(categories, "str"))
