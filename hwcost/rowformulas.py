"""Row formulas of a metric: composed for each group of rows, compiled once, bound to tables."""

from collections.abc import Mapping, Sequence

import sympy
from torch import Tensor

from hwcost.compile import Formula, compile_formula
from hwcost.derived import derived_exprs
from hwcost.evaluate import Bound, bind, row_values
from hwcost.formula import symbol
from hwcost.plan import Group
from hwcost.platform import Engine, Metric, Platform
from hwcost.workload import Workload


class RowFormulas:
    """What each group of rows costs by one metric."""

    def __init__(self, platform: Platform, metric: Metric) -> None:
        self.platform, self.metric = platform, metric
        self.what = f"{metric.name} of {platform.name}"
        self._compiled: dict[tuple[int, str, int], Formula] = {}

    def expr(self, group: Group) -> sympy.Expr:
        """Return the row formula of a group over sizes and params, before numbers are filled in."""
        assert self.metric.row is not None
        expr: sympy.Expr = self.metric.row
        if group.entry is not None:
            if symbol("busy") in expr.free_symbols:
                latency = self.platform.metric("latency").row
                assert latency is not None
                expr = expr.xreplace({symbol("busy"): latency})
            expr = expr.xreplace({symbol("cycles"): group.entry.row_cycles})
        return expr.xreplace(derived_exprs(group.kind))

    def numbers(self, engine: Engine | None) -> Mapping[sympy.Symbol, sympy.Expr]:
        """Return what stands for the params and memory sizes in an engine's formulas."""
        return self.platform.numbers(engine)

    def formula(self, group: Group) -> Formula:
        """Return the compiled formula of a group, numbers filled in, in the metric's unit."""
        key = (group.engine, group.kind, id(group.entry))
        if key not in self._compiled:
            engines = list(self.platform.engines.values())
            engine = engines[group.engine] if group.engine >= 0 else None
            unit = self.metric.unit.value
            expr = self.expr(group).xreplace(self.numbers(engine))
            scale = sympy.Rational(unit.numerator, unit.denominator)
            self._compiled[key] = compile_formula(expr / scale)
        return self._compiled[key]

    def bound(
        self, workload: Workload, groups: Sequence[Group], bits: Mapping[str, Tensor]
    ) -> Bound:
        """Return the groups' formulas with all filled in that ``workload`` does not change."""
        return bind(workload, groups, [self.formula(group) for group in groups], bits, self.what)

    def values(
        self, workload: Workload, groups: Sequence[Group], bits: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the rows' costs, 0 for rows in no group; shape ``(rows,)``."""
        bound = self.bound(workload, groups, bits)
        return row_values(bound, workload)
