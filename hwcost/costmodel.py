"""CostModel: one metric of one platform as a function of an op table."""

import math
import warnings
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hwcost.errors import HwcostWarning
from hwcost.evaluate import Bound, changed_key, check_finite, row_values, weighted_sum
from hwcost.loading import load
from hwcost.memorycost import MemoryMetric
from hwcost.offers import Candidate
from hwcost.oplevel import OpMetric
from hwcost.ops import BITS
from hwcost.plan import Group, Plan, make_plan, plan_by_size, require_supported
from hwcost.platform import Platform
from hwcost.rowformulas import RowFormulas
from hwcost.structure import Structure
from hwcost.tile_now import with_tiles
from hwcost.workload import Workload

#: Names in a formula that depend on the bits of a row.
READS_BITS = {*BITS, "w_bytes", "in_bytes", "out_bytes"}

#: A table that needs no gradient is priced this many rows at a time, to bound the memory.
CHUNK = 1 << 18


class CostModel:
    """What a network costs on a platform by one metric.

    Args:
        platform: a platform, its shipped name, or the path of its file.
        metric: the name of one of its metrics.
        place_by: the metric by which ops that several engines can run are placed; ``metric``
            itself unless given.
        on_unsupported: ``"error"``, or ``"warn"`` to price the rest and warn: ``rows`` are then
            NaN where the platform has no formula, and ``total`` is that of the other rows.

    Raises:
        UnknownName: no such platform or metric.
        DescriptorError: the platform's file is wrong.
    """

    def __init__(
        self,
        platform: str | Path | Platform,
        metric: str = "latency",
        *,
        place_by: str | None = None,
        on_unsupported: str = "error",
    ) -> None:
        if on_unsupported not in ("error", "warn"):
            raise ValueError(f"on_unsupported is {on_unsupported!r}; expected 'error' or 'warn'")
        self.platform = load(platform)
        self.metric = self.platform.metric(metric)
        self.place_by = self.platform.metric(place_by or self._usual_place_by()).name
        self.on_unsupported = on_unsupported
        self.formulas = RowFormulas(self.platform, self.metric)
        self._plans: WeakKeyDictionary[Structure, Plan] = WeakKeyDictionary()
        self._bounds: WeakKeyDictionary[Structure, dict[tuple[Any, ...], Bound]] = (
            WeakKeyDictionary()
        )

    def __repr__(self) -> str:
        return f"CostModel({self.platform.name!r}, {self.metric.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.platform, self.metric.name, self.place_by, self.on_unsupported)

    def __deepcopy__(self, memo: object) -> "CostModel":
        return self  # it never changes, and has compiled its formulas

    @property
    def unit(self) -> str:
        """The unit of ``rows`` and ``total``."""
        return self.metric.unit.text

    def rows(self, workload: Workload) -> Tensor:
        """Return what one execution of each row costs, float64, shape ``(rows,)``, in ``unit``.

        A metric of whole ops (one that reads ``span`` or ``busy_ENGINE``) stands in the first row
        of each op, or of each of its cases. ``peak_live`` gives the bytes alive while the row's op
        runs.

        Raises:
            UnsupportedOp: the platform has no formula for a row.
            WorkloadError: a row lacks a size that its formula reads.
            CostError: a value is NaN or infinite.
        """
        if _is_long(workload):
            return torch.cat([self._rows(part) for part in _chunks(workload)])
        return self._rows(workload)

    def total(self, workload: Workload, *, smooth: float | None = None) -> Tensor:
        """Return the cost of one inference, a scalar in ``unit``, differentiable in every size.

        Rows count ``weight`` times. Rows of one op on several engines add up or run in parallel,
        and ops add up, as the metric says; so do the cases of an op, which exclude each other.

        Args:
            workload: the table.
            smooth: for a loss: the time of n engines in parallel is the p-norm of theirs with
                this p, above 1, which has a slope for the engine that waits too. It does not
                depend on the unit and is at most ``n**(1/p)`` times the largest, which is what
                counts unless given.

        Raises:
            UnsupportedOp, WorkloadError, CostError: as for ``rows``.
            ValueError: ``smooth`` is not above 1.
        """
        if smooth is not None and not smooth > 1:
            raise ValueError(f"smooth is {smooth!r}; expected a number above 1")
        if _is_long(workload) and self._adds_up(workload.structure):
            return torch.stack([self._total(part) for part in _chunks(workload)]).sum()
        return self._total(workload, smooth)

    def plan(self, workload: Workload) -> Plan:
        """Return which engine and formula price each row, at which bits.

        Raises:
            PrecisionError: no engine computes with the bits of some row.
        """
        structure = workload.structure
        if structure not in self._plans:
            self._plans[structure] = self._make_plan(workload)
        return self._plans[structure]

    def engines(self, workload: Workload) -> dict[str, Tensor]:
        """Return what each engine's rows cost together, scalars in ``unit``."""
        engine = self.plan(workload).engine
        costs = self.rows(workload) * workload.column("weight")
        return {
            name: costs[(engine == index) & ~costs.isnan()].sum()
            for index, name in enumerate(self.platform.engines)
        }

    def latex(self) -> str:
        """Return the metric's formulas as LaTeX, a line for each engine and kind of op."""
        from hwcost.explain import latex

        return latex(self)

    def explain(self, workload: Workload, layer: str) -> str:
        """Return why a layer costs what it does: formula, numbers, sources, terms, maxima.

        Raises:
            UnknownName: no such layer.
        """
        from hwcost.explain import explain

        return explain(self, workload, layer)

    @cached_property
    def by_engine(self) -> bool:
        """Whether the metric depends on who runs an op; one over sizes alone does not."""
        shared = {s.name for s in self.platform.numbers()}
        own = {p for e in self.platform.engines.values() for p in e.params} - shared
        reads = self.metric.reads
        return self.metric.needs_ops or bool(reads & {"cycles", "busy"}) or bool(reads & own)

    @cached_property
    def _op_metric(self) -> OpMetric:
        return OpMetric(self, self._latency if "latency" in self.platform.metrics else self)

    @cached_property
    def memory(self) -> MemoryMetric:
        """The evaluation of a ``peak_live`` metric: the peak, its op, what each row writes."""
        return MemoryMetric(self)

    @cached_property
    def _placing(self) -> "CostModel":
        return CostModel(self.platform, self.place_by, on_unsupported="warn")

    @cached_property
    def _latency(self) -> "CostModel":
        return CostModel(
            self.platform, "latency", place_by=self.place_by, on_unsupported=self.on_unsupported
        )

    def _usual_place_by(self) -> str:
        if self.by_engine or "latency" not in self.platform.metrics:
            return self.metric.name
        return "latency"

    def _make_plan(self, workload: Workload) -> Plan:
        structure = workload.structure
        if not self.platform.engines or (not self.by_engine and self.metric.reduce is None):
            plan = plan_by_size(self.platform, structure, "macs" in self.metric.reads)
            if self.place_by == self.metric.name or not self.metric.reads & READS_BITS:
                return plan
            # Engines play no part in the formula, but the bits are those of the row's engine.
            return replace(plan, bits=self._placing.plan(workload).bits)
        if self.place_by != self.metric.name:
            return self._placing.plan(workload)

        def price(rows: Tensor, engine: int, offer: Candidate) -> Tensor:
            return self._price(structure, rows, engine, offer)

        return make_plan(self.platform, structure, price)

    def _price(self, structure: Structure, rows: Tensor, engine: int, offer: Candidate) -> Tensor:
        """What rows would cost on an engine, on the traced sizes."""
        traced = Workload(structure)
        groups = []
        for number in torch.unique(offer.entry[rows]).tolist():
            entry = offer.entries[number]
            if entry.cycles is not None:
                mine = rows[offer.entry[rows] == number]
                groups.append(Group(engine, entry.kind, entry, mine))
        if self.metric.needs_ops:
            busy = self._latency.formulas.values(traced, groups, offer.columns)[rows]
            return self._op_metric.alone(engine, busy)
        return self.formulas.values(traced, groups, offer.columns)[rows]

    def _bound(self, workload: Workload) -> tuple[Bound, Workload]:
        """The formulas for a table, and the table with its present tiles."""
        plan = self.plan(workload)
        workload = with_tiles(plan, workload)
        key = changed_key(workload)
        bounds = self._bounds.setdefault(workload.structure, {})
        if key not in bounds:
            bounds[key] = self.formulas.bound(workload, plan.groups, plan.columns)
        return bounds[key], workload

    def _check_supported(self, plan: Plan) -> None:
        if self.metric.reduce is not None:
            return
        if plan.problems and self.on_unsupported == "error":
            require_supported(plan)
        if plan.problems:
            warnings.warn("; ".join(plan.problems.values()), HwcostWarning, stacklevel=4)

    def row_values(self, workload: Workload) -> Tensor:
        """Return the row formulas' values, 0 where a row has no price; shape ``(rows,)``."""
        return row_values(*self._bound(workload))

    def _rows(self, workload: Workload) -> Tensor:
        plan = self.plan(workload)
        self._check_supported(plan)
        if self.metric.reduce is not None:
            return self.memory.rows(workload)
        if self.metric.needs_ops:
            values = self._op_metric.rows(workload)
        else:
            values = self.row_values(workload)
        check_finite(values, workload, self.formulas.what)
        if plan.problems:
            missing = torch.zeros(len(workload), dtype=torch.bool)
            missing[list(plan.problems)] = True
            values = values.masked_fill(missing.to(values.device), float("nan"))
        return values

    def _total(self, workload: Workload, smooth: float | None = None) -> Tensor:
        self._check_supported(self.plan(workload))
        if self.metric.reduce is not None:
            return self.memory.peak(workload).bytes
        if self.metric.needs_ops:
            total = self._op_metric.total(workload, smooth)
        elif self._adds_up(workload.structure):
            total = weighted_sum(*self._bound(workload))
        else:
            values = self.row_values(workload)
            total = self._op_metric.combined(values, workload, self, smooth)
        if not math.isfinite(float(total.detach())):
            check_finite(self.row_values(workload), workload, self.formulas.what)
        return total

    def _adds_up(self, structure: Structure) -> bool:
        simple = (
            self.metric.reduce is None and not self.metric.needs_ops and self.metric.ops == "sum"
        )
        return simple and (self.metric.engines == "sum" or structure.one_row_per_op)


def _rebuild(platform: Platform, metric: str, place_by: str, on_unsupported: str) -> CostModel:
    return CostModel(platform, metric, place_by=place_by, on_unsupported=on_unsupported)


def _is_long(workload: Workload) -> bool:
    grads = torch.is_grad_enabled() and any(c.requires_grad for c in workload.changed.values())
    return len(workload) > CHUNK and not grads and workload.structure.one_row_per_op


def _chunks(workload: Workload) -> list[Workload]:
    return [workload.slice(start, start + CHUNK) for start in range(0, len(workload), CHUNK)]
