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
from hwcost.workload import Workload

if TYPE_CHECKING:
    from hwcost.costmodel import CostModel


class OpMetric:
    """Combines rows into ops, and prices ops by formulas that read several engines' times.

    ``busy`` has shape ``(engines, ops)``: how long each engine works on each op, the rows'
    ``weight`` included.
    """

    def __init__(self, model: "CostModel", latency: "CostModel") -> None:
        self.platform, self.metric, self.latency = model.platform, model.metric, latency
        self._cells: WeakKeyDictionary[Plan, Tensor] = WeakKeyDictionary()

    def total(self, workload: Workload) -> Tensor:
        """Return the metric of the network, a scalar."""
        return self._over_ops(self._per_op(self.busy(workload)))

    def rows(self, workload: Workload) -> Tensor:
        """Return each op's cost in the op's first row, 0 in its other rows; shape ``(rows,)``."""
        ops = self._per_op(self.busy(workload))
        index = workload.structure.ops
        if workload.structure.one_row_per_op:
            return ops
        rows = torch.arange(len(index))
        first = rows.new_full((len(ops),), len(rows)).scatter_reduce(0, index, rows, "amin")
        return ops[index].masked_fill((rows != first[index]).to(ops.device), 0)

    def alone(self, engine: int, busy: Tensor) -> Tensor:
        """Return what ops cost that only ``engine`` works on, ``busy`` long; shape of ``busy``."""
        times = torch.zeros(len(self.platform.engines), *busy.shape, dtype=busy.dtype)
        times[engine] = busy
        return self._per_op(times)

    def busy(self, workload: Workload) -> Tensor:
        """Return each engine's time on each op, shape ``(engines, ops)``."""
        return self.by_engine(self.latency.row_values(workload), workload, self.latency)

    def by_engine(self, values: Tensor, workload: Workload, model: "CostModel") -> Tensor:
        """Return row values times ``weight`` summed by engine and op, shape ``(engines, ops)``."""
        structure, plan = workload.structure, model.plan(workload)
        if plan not in self._cells:
            self._cells[plan] = plan.engine.clamp(min=0) * structure.n_ops + structure.ops
        weighted = values * workload.column("weight").to(values.device)
        engines = max(len(self.platform.engines), 1)
        cells = values.new_zeros(engines * structure.n_ops)
        cell = self._cells[plan].to(values.device)
        return cells.index_add(0, cell, weighted).reshape(engines, structure.n_ops)

    def combined(self, values: Tensor, workload: Workload, model: "CostModel") -> Tensor:
        """Return the network's cost from its rows' values, a scalar."""
        return self._over_ops(
            _over_engines(self.by_engine(values, workload, model), self.metric.engines)
        )

    def _over_ops(self, ops: Tensor) -> Tensor:
        return ops.amax() if self.metric.ops == "max" and len(ops) else ops.sum()

    def _per_op(self, busy: Tensor) -> Tensor:
        engines = busy.unbind()
        if self.metric.op is not None:
            formula = self._formulas[0]
            times = {f"busy_{n}": t for n, t in zip(self.platform.engines, engines, strict=False)}
            if "span" in formula.names:
                times["span"] = _over_engines(busy, self.latency.metric.engines)
            return _priced(formula, times, engines[0])
        span = _over_engines(busy, self.latency.metric.engines)
        costs = [
            _priced(formula, {"busy": engines[i], "span": span}, span)
            for i, formula in enumerate(self._formulas)
        ]
        return _over_engines(torch.stack(costs), self.metric.engines)

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
            expr = self.metric.op.xreplace(times).xreplace(self.platform.numbers())
            return (compile_formula(expr / scale),)
        assert self.metric.row is not None
        row = self.metric.row.xreplace(times)
        engines = self.platform.engines.values()
        return tuple(
            compile_formula(row.xreplace(self.platform.numbers(e)) / scale) for e in engines
        )


def _over_engines(values: Tensor, how: str) -> Tensor:
    return values.amax(0) if how == "max" else values.sum(0)


def _priced(formula: Formula, times: Mapping[str, Tensor], span: Tensor) -> Tensor:
    return formula({name: times[name] for name in formula.names}).expand(span.shape)
