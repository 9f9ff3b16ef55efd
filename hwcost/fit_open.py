"""A cost model in which params to be fitted stay open, as columns of the table."""

from collections.abc import Mapping
from functools import cached_property

import sympy
from torch import Tensor

from hwcost.compile import Formula
from hwcost.costmodel import CostModel
from hwcost.fit_params import column_of, location
from hwcost.formula import symbol
from hwcost.oplevel import OpMetric
from hwcost.platform import Engine, Platform
from hwcost.rowformulas import RowFormulas
from hwcost.workload import Workload


def _opened(platform: Platform, engine: Engine | None) -> dict[sympy.Symbol, sympy.Expr]:
    """The numbers of a platform, with a column in place of each param to be fitted."""
    values: dict[sympy.Symbol, sympy.Expr] = dict(platform.numbers(engine))
    own = {} if engine is None else engine.params
    for name, param in {**platform.params, **own}.items():
        if param.fit:
            values[symbol(name)] = symbol(column_of(location(platform, engine, name)))
    return values


class _OpenFormulas(RowFormulas):
    """Row formulas in which params to be fitted stay open, as columns."""

    def numbers(self, engine: Engine | None) -> dict[sympy.Symbol, sympy.Expr]:
        return _opened(self.platform, engine)


class _OpenOps(OpMetric):
    """The same for formulas of whole ops, each of which is one row."""

    def __init__(self, model: CostModel, latency: CostModel) -> None:
        super().__init__(model, latency)
        self._columns: Mapping[str, Tensor] = {}

    def rows(self, workload: Workload) -> Tensor:
        self._columns = workload.changed
        return super().rows(workload)

    def numbers(self, engine: Engine | None = None) -> dict[sympy.Symbol, sympy.Expr]:
        return _opened(self.platform, engine)

    def priced(self, formula: Formula, times: Mapping[str, Tensor], span: Tensor) -> Tensor:
        return super().priced(formula, {**self._columns, **times}, span)


class OpenModel(CostModel):
    """A cost model whose params to be fitted are columns of the table."""

    def __init__(self, closed: CostModel) -> None:
        super().__init__(closed.platform, closed.metric.name, place_by=closed.place_by)
        self.formulas = _OpenFormulas(self.platform, self.metric)

    @cached_property
    def _latency(self) -> CostModel:
        return OpenModel(CostModel(self.platform, "latency", place_by=self.place_by))

    @cached_property
    def _op_metric(self) -> OpMetric:
        return _OpenOps(self, self._latency if "latency" in self.platform.metrics else self)

    def costs(self, workload: Workload) -> Tensor:
        """Return what each row costs in all its executions, finite or not, shape ``(rows,)``."""
        if self.metric.needs_ops:
            return self._op_metric.rows(workload)
        return self.row_values(workload) * workload.column("weight")
