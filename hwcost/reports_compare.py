"""The comparison of networks over platforms: one row for each pair."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hwcost.calibration import MeasuredError
from hwcost.measured import Figure, figure
from hwcost.percent import percent
from hwcost.platform import Metric, Platform
from hwcost.reports_costs import STATUS_MEANS, Priced
from hwcost.reports_error import (
    MEANING,
    error_column,
    not_measured,
    other_point,
    raw_errors,
    total_error,
)
from hwcost.reports_format import Column, Sheet
from hwcost.reports_measured import measured_columns, measured_notes, raw_measured
from hwcost.reports_memory import memory_lines, weight_bytes
from hwcost.reports_tabular import Tabular, column_name, si
from hwcost.units import engineering


@dataclass(frozen=True, eq=False)
class Entry:
    """A network on a platform: its costs, or why there are none.

    Attributes:
        zoo: the network's name in the zoo, empty where it is not from there.
    """

    model: str
    platform: Platform
    costs: Priced | None
    failure: str = ""
    zoo: str = ""

    @cached_property
    def macs(self) -> float:
        """MACs of the network, priced or not."""
        if self.costs is None:
            return math.nan
        return math.fsum(macs for macs in self.costs.macs if not math.isnan(macs))

    @cached_property
    def weights(self) -> float:
        """Bytes of the weights at the bits of the platform."""
        return math.nan if self.costs is None else weight_bytes(self.costs)

    @cached_property
    def note(self) -> str:
        """Why there are no costs, or which ops they leave out."""
        if self.costs is None:
            return self.failure
        notes = []
        problems = self.costs.problems
        if problems:
            kinds = self.costs.coverage.kinds["unsupported"]
            ops = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            notes.append(f"no formula for {ops}; first {problems[0]}")
        short = [f"{name}: {text}" for name, text in memory_lines(self.costs) if "NOT" in text]
        elsewhere = other_point(self.platform)
        error = f"error {elsewhere}" if elsewhere else not_measured(self.costs)
        return "; ".join([*notes, *short, *([error] if error else [])])

    def error(self, metric: str) -> MeasuredError | None:
        """The measured error of a total, None where it is not known."""
        return total_error(self.costs, metric) if self.costs and self.metric(metric) else None

    def measured(self, metric: str) -> Figure | None:
        """What was measured of the same network at the same bits, None where nothing was."""
        found = figure(self.zoo, self.platform, metric) if self.zoo else None
        if found is None or (self.costs and self.costs.precision != found.bits):
            return None
        return found

    def off(self, metric: str) -> float:
        """The cost relative to what was measured, 0.05 where it is 5 % above; NaN if unknown."""
        found, known = self.measured(metric), self.metric(metric)
        if found is None or known is None or self.costs is None or self.costs.partial(metric):
            return math.nan
        return self.costs.totals[metric] * si(known) / float(found.value.value) - 1

    def metric(self, name: str) -> Metric | None:
        """The platform's metric of this name, None where it has none or no value."""
        known = self.costs is not None and name in self.costs.totals
        return self.platform.metrics[name] if known else None


@dataclass(frozen=True, eq=False)
class Comparison(Tabular):
    """Costs of networks on platforms.

    Attributes:
        entries: platform by platform for one network, then the next network.
        metrics: names of the metrics compared.
        measured: whether published measurements stand beside the costs.
    """

    entries: Sequence[Entry]
    metrics: Sequence[str]
    measured: bool = False

    def __repr__(self) -> str:
        return f"Comparison({len(self.entries)} rows: {', '.join(self.metrics)})"

    def columns(self) -> Mapping[str, Any]:
        """Return one row for each network and platform; NaN where a platform lacks a metric."""
        columns: dict[str, list[Any]] = {
            "model": [e.model for e in self.entries],
            "platform": [e.platform.name for e in self.entries],
        }
        for metric in self.metrics:
            columns |= self._raw(metric)
            columns |= raw_errors(metric, [e.error(metric) for e in self.entries])
            columns |= raw_measured(self.entries, metric) if self.measured else {}
        known = [e.costs for e in self.entries]
        columns |= {
            "weights_bytes": [e.weights for e in self.entries],
            "macs": [e.macs for e in self.entries],
            "precision": [c.precision if c else "" for c in known],
            "macs_priced": [c.coverage.macs if c else math.nan for c in known],
            "bytes_priced": [c.coverage.bytes if c else math.nan for c in known],
            "lower_bound": [bool(c and any(map(c.partial, c.models))) for c in known],
            "status": [e.platform.status for e in self.entries],
            "note": [e.note for e in self.entries],
        }
        return columns

    def _raw(self, metric: str) -> dict[str, list[Any]]:
        """The metric's columns, one for each unit that it has."""
        columns: dict[str, list[Any]] = {}
        for row, entry in enumerate(self.entries):
            found = entry.metric(metric)
            if found is not None and entry.costs is not None:
                column = columns.setdefault(column_name(found), [math.nan] * len(self.entries))
                column[row] = entry.costs.totals[metric] * si(found)
        return dict(sorted(columns.items()))

    def sheet(self) -> Sheet:
        """Return the comparison as text."""
        names = [e.model for e in self.entries]
        starts = [i for i in range(1, len(names)) if names[i] != names[i - 1]]
        footnotes = list(dict.fromkeys(e.note for e in self.entries if e.note))
        marks = [f"[{footnotes.index(e.note) + 1}]" if e.note else "" for e in self.entries]
        return Sheet(
            title="",
            columns=self._text_columns(starts, marks),
            starts=starts if len(starts) < len(names) - 1 else (),
            notes=self._notes(footnotes),
        )

    def _text_columns(self, starts: Sequence[int], marks: Sequence[str]) -> list[Column]:
        first = {0, *starts}
        models = [e.model if i in first else "" for i, e in enumerate(self.entries)]
        statuses = [e.platform.status for e in self.entries]
        macs = [engineering(e.macs, "1") for e in self.entries]
        columns = [
            Column("model", models, least=10),
            Column("platform", [e.platform.name for e in self.entries], least=12),
        ]
        for index, metric in enumerate(self.metrics):
            cells = [self._cell(entry, metric) for entry in self.entries]
            rank = 0 if index == 0 else 2 + index
            columns.append(Column(metric, cells, True, rank))
            columns += error_column(metric, [e.error(metric) for e in self.entries], rank)
            columns += measured_columns(self.entries, metric, rank) if self.measured else []
        columns += [
            Column("weights", [engineering(e.weights, "B") for e in self.entries], True, 6),
            Column("MACs", macs, True, 7),
            Column("bits", [_precision(e) for e in self.entries], rank=8),
            Column("MACs priced", [_covered(e)[0] for e in self.entries], True, 2, "MACs%"),
            Column("bytes priced", [_covered(e)[1] for e in self.entries], True, 9, "bytes%"),
        ]
        narrow = [f"{status[:5]}." for status in statuses]
        columns += [Column("status", statuses, narrow=narrow)] if len(set(statuses)) > 1 else []
        columns += [Column("note", marks, rank=0)] if any(marks) else []
        return columns

    def _cell(self, entry: Entry, metric: str) -> str:
        return entry.costs.total_text(metric) if entry.costs and entry.metric(metric) else "-"

    def _notes(self, footnotes: Sequence[str]) -> list[str]:
        notes = [f"[{number}] {note}" for number, note in enumerate(footnotes, 1)]
        statuses = {e.platform.status for e in self.entries}
        if len(statuses) == 1:
            status = statuses.pop()
            notes.append(f"Status of all platforms: {STATUS_MEANS.get(status, status)}.")
        notes.append(
            "Priced: the share of the network's MACs, and of the bytes that its ops read and write,"
            " for which the platform has a formula; the rest is free there, or unsupported."
        )
        if any(e.costs and any(map(e.costs.partial, e.costs.models)) for e in self.entries):
            notes.append("'>=': a lower bound, since ops without a price are missing in the sum.")
        notes += [MEANING] if any(e.error(m) for e in self.entries for m in self.metrics) else []
        return notes + (measured_notes(self.entries, self.metrics) if self.measured else [])


def _precision(entry: Entry) -> str:
    return entry.costs.precision if entry.costs else ""


def _covered(entry: Entry) -> tuple[str, str]:
    if entry.costs is None:
        return "-", "-"
    return percent(entry.costs.coverage.macs), percent(entry.costs.coverage.bytes)
