"""The report of one network on one platform, op by op."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from hwcost.explain_sizes import sizes_text
from hwcost.offers import STATUSES
from hwcost.ops import BITS, KINDS, SIZES
from hwcost.percent import percent
from hwcost.reports_costs import STATUS_MEANS, Priced
from hwcost.reports_error import (
    calibration_facts,
    not_measured,
    other_point,
    raw_errors,
    total_error,
    with_error,
)
from hwcost.reports_format import Column, Sheet
from hwcost.reports_memory import memory_lines, peak, peak_line
from hwcost.reports_tabular import Tabular, column_name, si
from hwcost.units import engineering
from hwcost.workload import Workload


@dataclass(frozen=True, eq=False)
class Report(Tabular):
    """What each op of a network costs on a platform, and why so much is known about it.

    Attributes:
        costs: the priced network: totals, rows, plan and coverage.
    """

    costs: Priced

    def __repr__(self) -> str:
        c = self.costs
        return f"Report({c.name!r} on {c.platform.name!r}: {len(c.workload)} ops)"

    @property
    def totals(self) -> dict[str, float]:
        """The network's cost by each metric, in SI base units; ``latency_s`` and so on."""
        return {column_name(m): self.costs.totals[m.name] * si(m) for m in self.costs.metrics}

    @cached_property
    def _sizes(self) -> list[str]:
        return [sizes_text(kind, sizes) for kind, sizes in row_sizes(self.costs.workload)]

    @cached_property
    def _engines(self) -> list[str]:
        names = [*self.costs.platform.engines, ""]
        return [names[engine] for engine in self.costs.plan.engine.tolist()]

    @cached_property
    def _statuses(self) -> list[str]:
        return [STATUSES[status] for status in self.costs.plan.status.tolist()]

    @cached_property
    def _bits(self) -> list[str]:
        plan, kinds = self.costs.plan, self.costs.workload.kinds
        pairs = zip(plan.bits["w_bits"].tolist(), plan.bits["a_bits"].tolist(), kinds, strict=True)
        return [_bits_of(w, a, kind) for w, a, kind in pairs]

    def columns(self) -> Mapping[str, Any]:
        """Return one value for each op: names, sizes, bits, MACs, costs in SI units, shares."""
        c = self.costs
        columns: dict[str, Any] = {
            "layer": list(c.workload.layers),
            "kind": list(c.workload.kinds),
            "sizes": self._sizes,
            "engine": self._engines,
            "status": self._statuses,
            "w_bits": c.plan.bits["w_bits"].tolist(),
            "a_bits": c.plan.bits["a_bits"].tolist(),
            "weight": c.workload.column("weight").tolist(),
            "macs": self.costs.macs,
        }
        density = c.workload.column("density").tolist()
        columns |= {"density": density} if _varied(density) else {}
        for metric in c.metrics:
            columns[column_name(metric)] = (c.rows[metric.name] * si(metric)).tolist()
        for metric in c.metrics:
            if metric.reduce is None:
                columns[f"{metric.name}_share"] = c.share(metric.name)
        for metric in c.metrics:
            error = c.platform.error(metric.name, "layers")
            columns |= raw_errors(metric.name, [error] * len(c.workload))
        return columns

    def to_dict(self) -> dict[str, Any]:
        """Return what the report says as plain data, numbers in SI units."""
        c = self.costs
        return {
            "model": c.name,
            "platform": c.platform.name,
            "title": c.platform.title,
            "point": c.platform.point or None,
            "status": c.platform.status,
            "sources": dict(c.platform.sources),
            "precision": c.precision,
            "placed_by": c.placed_by or None,
            "coverage": {
                "macs": c.coverage.macs,
                "bytes": c.coverage.bytes,
                "default_macs": c.coverage.default_macs,
                "kinds": c.coverage.kinds,
            },
            "totals": self.totals,
            "errors": {column_name(m): _raw_error(c, m.name) for m in c.metrics},
            "error_note": other_point(c.platform) or not_measured(c),
            "lower_bounds": [column_name(m) for m in c.metrics if c.partial(m.name)],
            "peaks": {m.name: peak(c, m.name) for m in c.metrics if m.reduce is not None},
            "memories": dict(memory_lines(c)),
            **super().to_dict(),
        }

    def sheet(self) -> Sheet:
        """Return the report as text."""
        c = self.costs
        return Sheet(
            title=f"{c.name} on {c.platform.name}: {c.platform.title}",
            columns=self._text_columns(),
            facts=self._facts(),
            results=self._results(),
            notes=self._notes(),
        )

    def _facts(self) -> list[tuple[str, str]]:
        p, c = self.costs.platform, self.costs
        facts = [("status", STATUS_MEANS.get(p.status, p.status))]
        facts += calibration_facts(p, self.costs.models)
        facts += [("source" if i == 0 else "", text) for i, text in enumerate(p.sources.values())]
        facts += [("leaves out", p.note)] if p.note else []
        facts.append(("precision", c.precision or "-"))
        facts.append(("covers", str(c.coverage)))
        samples = c.workload.structure.samples
        if samples > 1:
            facts.append(("samples", f"{samples}, the example's batch; costs are those of all"))
        if c.placed_by:
            facts.append(
                ("placed by", f"{c.placed_by}: each op runs on the engine where it is least")
            )
        return facts

    def _text_columns(self) -> list[Column]:
        c = self.costs
        weights = c.workload.column("weight").tolist()
        several = len(c.platform.engines) > 1
        odd = any(status not in ("modelled", "free") for status in self._statuses)
        columns = [
            Column("layer", [name or "(model)" for name in c.workload.layers], least=20),
            Column("kind", c.workload.kinds, rank=1),
            Column("sizes", self._sizes, rank=5),
        ]
        columns += (
            [Column("times", [f"{w:.4g}" for w in weights], True, 2)] if _varied(weights) else []
        )
        columns += density_column(c.workload)
        columns += [Column("engine", self._engines, rank=3)] if several else []
        columns += [Column("status", self._statuses, rank=2 if odd else 7)]
        columns += [Column("bits", self._bits, rank=8 if len(set(self._bits)) < 3 else 4)]
        if not any(_is_macs(m) for m in c.metrics):
            columns.append(
                Column("MACs", [engineering(m, "1") if m else "" for m in self.costs.macs], True, 6)
            )
        for index in range(len(c.metrics)):
            columns += self._metric_columns(index)
        return columns

    def _metric_columns(self, index: int) -> list[Column]:
        metric = self.costs.metrics[index]
        rows, unit = self.costs.rows[metric.name].tolist(), metric.unit.text
        cells = [self._cell(row, value, unit, metric.name) for row, value in enumerate(rows)]
        columns = [
            Column(
                _heading(metric.name, metric.reduce), cells, True, 0 if index == 0 else 3 + index
            )
        ]
        if index == 0 and metric.reduce is None:
            columns.append(
                Column("share", [_share(s) for s in self.costs.share(metric.name)], True, 3)
            )
        return columns

    def _cell(self, row: int, value: float, unit: str, metric: str) -> str:
        if math.isnan(value):
            return "?"
        model = self.costs.models[metric]
        if value == 0 and model.by_engine and self.costs.is_free(row):
            return "free"
        return engineering(value, unit)

    def _results(self) -> list[tuple[str, str]]:
        c = self.costs
        results = []
        for metric in c.metrics:
            text = with_error(c, metric.name)
            if metric.reduce is not None:
                text += peak_line(c, metric.name)
            results.append((metric.name, text))
        if not any(_is_macs(m) for m in c.metrics):
            results.append(("MACs", engineering(math.fsum(_numbers(self.costs.macs)), "1")))
        return results + memory_lines(c)

    def _notes(self) -> list[str]:
        c = self.costs
        notes = [f"warning: {text}" for text in c.workload.structure.warnings]
        notes += [text] if (text := not_measured(c)) else []
        problems = c.problems
        notes += [f"no price: {text}" for text in problems[:5]]
        notes += [f"no price: {len(problems) - 5} more ops"] if len(problems) > 5 else []
        if any(c.partial(m.name) for m in c.metrics):
            notes.append("'>=': a lower bound, since ops without a price are missing in the sum")
        return notes


def _raw_error(costs: Priced, metric: str) -> dict[str, Any] | None:
    """The measured error of a total as plain data, None where there is none."""
    error = total_error(costs, metric)
    if error is None:
        return None
    return asdict(error)


def row_sizes(workload: Workload) -> list[tuple[str, dict[str, float]]]:
    """Return the kind and the sizes of each row, bits left out."""
    columns = {n: workload.column(n).detach().tolist() for n in SIZES if n not in BITS}
    return [
        (kind, {name: columns[name][row] for name in KINDS[kind].sizes})
        for row, kind in enumerate(workload.kinds)
    ]


def density_column(workload: Workload) -> list[Column]:
    """Return the column of densities, none where all weights are dense."""
    density = workload.column("density").tolist()
    cells = [f"{d:.3g}" if d != 1 else "" for d in density]
    return [Column("density", cells, True, 2)] if _varied(density) else []


def _bits_of(w_bits: float, a_bits: float, kind: str) -> str:
    def of(letter: str, bits: float) -> str:
        return "" if math.isnan(bits) else f"{letter}{bits:g}"

    weighted = "bias" in KINDS[kind].sizes
    return of("w", w_bits) * weighted + of("a", a_bits) or "float"


def _is_macs(metric: Any) -> bool:
    """Whether a metric is the number of MACs itself, which then needs no column of its own."""
    return metric.row is not None and str(metric.row) == "macs"


def _varied(weights: list[float]) -> bool:
    return any(w != 1 for w in weights)


def _share(share: float) -> str:
    return "" if share == 0 or math.isnan(share) else percent(share)


def _heading(name: str, reduce: str | None) -> str:
    return "live" if reduce is not None else name


def _numbers(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
