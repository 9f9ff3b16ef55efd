"""Metrics of whole ops: rows of one op on several engines, in parallel or one after another."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import sympy
import torch
from torch import Tensor

from hwcost.compile import Formula, compile_formula
from hwcost.formula import symbol
from hwcost.plan import Plan
from hwcost.platform import Engine
from hwcost.workload import Workload

if TYPE_CHECKING:
    from hwcost.costmodel import CostModel


class OpMetric:
    """Combines rows into ops, and prices ops by formulas that read several engines' times.

    ``busy`` has shape ``(engines, slots)``: how long each engine works on each op, the rows'
    ``weight`` included. A slot is an op, or one of its cases, which exclude each other: as
    ``weight`` holds the case's probability, the costs of an op's cases add up.

    Where a ``smooth`` of p is given, the time of engines in parallel is the p-norm of theirs, in
    place of the largest.
    """

    def __init__(self, model: "CostModel", latency: "CostModel") -> None:
        self.platform, self.metric, self.latency = model.platform, model.metric, latency
        self._cells: WeakKeyDictionary[Plan, Tensor] = WeakKeyDictionary()

    def total(self, workload: Workload, smooth: float | None = None) -> Tensor:
        """Return the metric of the network, a scalar."""
        return self._over_ops(self._per_slot(self.busy(workload), smooth), workload)

    def rows(self, workload: Workload) -> Tensor:
        """Return each slot's cost in its first row, 0 in its other rows; shape ``(rows,)``."""
        costs = self._per_slot(self.busy(workload))
        index = workload.structure.slots
        if workload.structure.one_row_per_op:
            return costs
        rows = torch.arange(len(index))
        first = rows.new_full((len(costs),), len(rows)).scatter_reduce(0, index, rows, "amin")
        index, others = index.to(costs.device), (rows != first[index]).to(costs.device)
        return costs[index].masked_fill(others, 0)

    def alone(self, engine: int, busy: Tensor) -> Tensor:
        """Return what ops cost that only ``engine`` works on, ``busy`` long; shape of ``busy``."""
        times = torch.zeros(len(self.platform.engines), *busy.shape, dtype=busy.dtype)
        times[engine] = busy
        return self._per_slot(times)

    def busy(self, workload: Workload) -> Tensor:
        """Return each engine's time on each slot, shape ``(engines, slots)``."""
        return self.by_engine(self.latency.row_values(workload), workload, self.latency)

    def by_engine(self, values: Tensor, workload: Workload, model: "CostModel") -> Tensor:
        """Return row values times ``weight``, summed by engine and slot: (engines, slots)."""
        structure, plan = workload.structure, model.plan(workload)
        count = len(structure.slot_ops)
        if plan not in self._cells:
            self._cells[plan] = plan.engine.clamp(min=0) * count + structure.slots
        weighted = values * workload.column("weight").to(values.device)
        engines = max(len(self.platform.engines), 1)
        cells = values.new_zeros(engines * count)
        cell = self._cells[plan].to(values.device)
        return cells.index_add(0, cell, weighted).reshape(engines, count)

    def combined(
        self,
        values: Tensor,
        workload: Workload,
        model: "CostModel",
        smooth: float | None = None,
    ) -> Tensor:
        """Return the network's cost from its rows' values, a scalar."""
        times = self.by_engine(values, workload, model)
        return self._over_ops(_over_engines(times, self.metric.engines, smooth), workload)

    def _over_ops(self, slots: Tensor, workload: Workload) -> Tensor:
        structure = workload.structure
        if self.metric.ops != "max" or not len(slots):
            return slots.sum()
        if structure.cases is None:
            return slots.amax()
        ops = structure.slot_ops.to(slots.device)
        return slots.new_zeros(structure.n_ops).index_add(0, ops, slots).amax()

    def _per_slot(self, busy: Tensor, smooth: float | None = None) -> Tensor:
        engines = busy.unbind()
        if self.metric.op is not None:
            formula = self._formulas[0]
            times = {f"busy_{n}": t for n, t in zip(self.platform.engines, engines, strict=False)}
            if "span" in formula.names:
                times["span"] = _over_engines(busy, self.latency.metric.engines, smooth)
            return self.priced(formula, times, engines[0])
        span = _over_engines(busy, self.latency.metric.engines, smooth)
        costs = [
            self.priced(formula, {"busy": engines[i], "span": span}, span)
            for i, formula in enumerate(self._formulas)
        ]
        return _over_engines(torch.stack(costs), self.metric.engines, smooth)

    def priced(self, formula: Formula, times: Mapping[str, Tensor], span: Tensor) -> Tensor:
        """Return an op formula's values for the times that it reads, of the shape of ``span``."""
        return formula({name: times[name] for name in formula.names}).expand(span.shape)

    def numbers(self, engine: Engine | None = None) -> Mapping[sympy.Symbol, sympy.Expr]:
        """Return what stands for the params and memory sizes in an engine's formulas."""
        return self.platform.numbers(engine)

    @cached_property
    def _formulas(self) -> tuple[Formula, ...]:
        """The op formula, or the row formula with each engine's own params."""
        unit = self.metric.unit.value
        scale = sympy.Rational(unit.numerator, unit.denominator)
        # Formulas are in SI units, latencies in the unit of their metric.
        seconds = self.latency.metric.unit.value
        names = ["busy", "span", *(f"busy_{engine}" for engine in self.platform.engines)]
        times = {
            symbol(n): symbol(n) * sympy.Rational(seconds.numerator, seconds.denominator)
            for n in names
        }
        if self.metric.op is not None:
            expr = self.metric.op.xreplace(times).xreplace(self.numbers())
            return (compile_formula(expr / scale),)
        assert self.metric.row is not None
        row = self.metric.row.xreplace(times)
        engines = self.platform.engines.values()
        return tuple(compile_formula(row.xreplace(self.numbers(e)) / scale) for e in engines)


def _over_engines(values: Tensor, how: str, smooth: float | None = None) -> Tensor:
    if how != "max":
        return values.sum(0)
    return values.amax(0) if smooth is None else p_norm(values, smooth)


def p_norm(values: Tensor, p: float) -> Tensor:
    """Return ``sum(v**p)**(1/p)`` over the first dimension, a maximum with a slope in each value.

    It scales with the values, is exact where one of them stands alone, and at most ``n**(1/p)``
    times the largest. Where all are 0 its slope is that of the one that stands alone.

    Args:
        values: 0 or more, shape ``(n, ...)``.
        p: above 1.
    """
    largest = values.detach().amax(0)
    some = largest > 0
    unit = torch.where(some, largest, 1)
    # Divided by the largest, powers neither overflow nor vanish together.
    powers = (values / unit).pow(p).sum(0)
    norm = unit * torch.where(some, powers, 1).pow(1 / p)
    return torch.where(some, norm, values.sum(0))
