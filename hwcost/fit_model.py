"""What a platform predicts for measured ops as a function of the params that are to be fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import sympy
import torch
from torch import Tensor

from hwcost.compile import Formula
from hwcost.costmodel import CostModel
from hwcost.errors import FitError, HwcostError
from hwcost.fit_params import FitParam, column_of, fit_params, location
from hwcost.formula import symbol
from hwcost.measurements import Reading
from hwcost.oplevel import OpMetric
from hwcost.plan import Group as PlanGroup
from hwcost.plan import Plan
from hwcost.platform import Engine, Metric, Platform
from hwcost.rowformulas import RowFormulas
from hwcost.units import parse_unit
from hwcost.workload import Workload


def measured_model(platform: Platform, metric: str) -> CostModel:
    """Return the cost model of a measured column: of a metric, or of ``cycles``.

    Ops are placed on engines as for the latency.
    """
    platform = with_cycles(platform)
    place_by = "latency" if "latency" in platform.metrics else None
    return CostModel(platform, metric, place_by=place_by)


def with_cycles(platform: Platform) -> Platform:
    """Return the platform with a metric ``cycles``: of each row what its op entry says."""
    if "cycles" in platform.metrics:
        return platform
    usual = platform.metrics.get("latency")
    metric = Metric(
        name="cycles",
        unit=parse_unit("cycle"),
        title="cycles",
        text="cycles",
        row=symbol("cycles"),
        op=None,
        reduce=None,
        engines=usual.engines if usual else "sum",
        ops=usual.ops if usual else "sum",
        at=platform.document.name,
    )
    return replace(platform, metrics={**platform.metrics, "cycles": metric})


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


class _OpenModel(CostModel):
    """A cost model whose params to be fitted are columns of the table."""

    def __init__(self, closed: CostModel) -> None:
        super().__init__(closed.platform, closed.metric.name, place_by=closed.place_by)
        self.formulas = _OpenFormulas(self.platform, self.metric)

    @cached_property
    def _latency(self) -> CostModel:
        return _OpenModel(CostModel(self.platform, "latency", place_by=self.place_by))

    @cached_property
    def _op_metric(self) -> OpMetric:
        return _OpenOps(self, self._latency if "latency" in self.platform.metrics else self)

    def costs(self, workload: Workload) -> Tensor:
        """Return what each row costs in all its executions, finite or not, shape ``(rows,)``."""
        if self.metric.needs_ops:
            return self._op_metric.rows(workload)
        return self.row_values(workload) * workload.column("weight")


@dataclass(frozen=True, eq=False)
class Group:
    """Readings of one metric at one operating point.

    Attributes:
        readings: their places among all, int64, shape ``(readings,)``.
        owner: the reading of each row of the table, counted in this group, shape ``(rows,)``.
        params: those that the platform has at this point, with their places among all.
    """

    model: _OpenModel
    workload: Workload
    readings: Tensor
    owner: Tensor
    params: tuple[tuple[int, FitParam], ...]

    def priced(self, values: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Return each reading's cost in SI units, and the columns that the params are.

        Args:
            values: of all params, SI, shape ``(params,)``.
        """
        rows = len(self.workload)
        columns = {
            i: values[i].expand(rows).clone().requires_grad_(torch.is_grad_enabled())
            for i, _ in self.params
        }
        changed = {param.column: columns[i] for i, param in self.params}
        table = Workload(self.workload.structure, {**self.workload.changed, **changed})
        metric, costs = self.model.metric, self.model.costs(table)
        total = costs.new_zeros(len(self.readings))
        if metric.ops == "max":
            total = total.scatter_reduce(0, self.owner, costs, "amax")
        else:
            total = total.index_add(0, self.owner, costs)
        return total * float(metric.unit.value), columns

    def slopes(self, total: Tensor, columns: dict[int, Tensor]) -> dict[int, Tensor]:
        """Return param -> the slope of each reading's cost, shape ``(readings,)``."""
        if not columns or not total.requires_grad:
            return {}
        found = torch.autograd.grad(total.sum(), list(columns.values()), allow_unused=True)
        zeros = total.new_zeros(len(self.readings))
        return {
            i: zeros if grad is None else zeros.index_add(0, self.owner, grad)
            for i, grad in zip(columns, found, strict=True)
        }


class Predictor:
    """Predictions for all readings, and their slopes.

    Which engine runs a row, and which formula prices it, is decided with the platform's values.

    Raises:
        FitError: the platform cannot price a reading; the message starts with its ``file:line``.
    """

    def __init__(
        self, platform: Platform, readings: Sequence[Reading], params: Sequence[FitParam]
    ) -> None:
        self.readings, self.params = tuple(readings), tuple(params)
        self.platforms = at_points(platform, readings)
        self.measured = torch.tensor([r.value for r in readings], dtype=torch.float64)
        keys = dict.fromkeys((r.point, r.metric) for r in readings)
        self.groups = [self._group(*key) for key in keys]

    @property
    def placement(self) -> list[dict[int, str]]:
        """Of each group, the formula of each row that has one: where the file has it."""
        plans = [group.model.plan(group.workload) for group in self.groups]
        return [
            {
                row: f"{one.engine} {one.entry.at}"
                for one in plan.groups
                if one.entry
                for row in _rows(one, plan)
            }
            for plan in plans
        ]

    def _group(self, point: str, metric: str) -> Group:
        chosen = [i for i, r in enumerate(self.readings) if (r.point, r.metric) == (point, metric)]
        mine = [self.readings[i] for i in chosen]
        closed = measured_model(self.platforms[point], metric)
        tables = [reading.workload for reading in mine]
        table = tables[0] if len(tables) == 1 else Workload.concat(tables)
        owner = torch.repeat_interleave(torch.tensor([len(t) for t in tables]))
        table = table.with_engines(_checked_engines(closed, table, owner, mine))
        places = {param.loc: i for i, param in enumerate(self.params)}
        params = tuple((places[p.loc], p) for p in fit_params(self.platforms[point]))
        return Group(_OpenModel(closed), table, torch.tensor(chosen), owner, params)

    def __call__(self, values: Tensor) -> Tensor:
        """Return predictions in SI units, shape ``(readings,)``, for values of all params."""
        with torch.no_grad():
            found = torch.zeros(len(self.readings), dtype=torch.float64)
            for group in self.groups:
                found[group.readings] = group.priced(values)[0]
        return found

    def with_slopes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions, and their slopes of shape ``(readings, params)``."""
        found = torch.zeros(len(self.readings), dtype=torch.float64)
        slopes = torch.zeros(len(self.readings), len(self.params), dtype=torch.float64)
        with torch.enable_grad():
            for group in self.groups:
                total, columns = group.priced(values)
                found[group.readings] = total.detach()
                for param, slope in group.slopes(total, columns).items():
                    slopes[group.readings, param] = slope
        return found, slopes


def _rows(group: PlanGroup, plan: Plan) -> list[int]:
    """The rows of a group of a plan."""
    return list(range(len(plan.engine))) if group.rows is None else group.rows.tolist()


def at_points(platform: Platform, readings: Sequence[Reading]) -> dict[str, Platform]:
    """Return the platform at each operating point of the readings, the default one as ``""``.

    Raises:
        FitError: the platform has no such point.
    """
    found: dict[str, Platform] = {}
    for reading in readings:
        if reading.point not in found:
            try:
                found[reading.point] = platform.at(reading.point) if reading.point else platform
            except HwcostError as error:
                raise FitError(f"{reading.at}: {error}") from None
    return found


def predictions(platform: Platform, readings: Sequence[Reading]) -> Tensor:
    """Return what a platform's own values give for readings, in SI units."""
    platforms = at_points(platform, readings)
    keys = dict.fromkeys((r.point, r.metric) for r in readings)
    models = {key: measured_model(platforms[key[0]], key[1]) for key in keys}
    prices = [_placed(models[r.point, r.metric], r) for r in readings]
    return torch.tensor(prices, dtype=torch.float64)


def _checked_engines(
    model: CostModel, table: Workload, owner: Tensor, readings: Sequence[Reading]
) -> list[str | None]:
    """The engine of each row; every reading has a price above 0."""
    try:
        plan, costs = model.plan(table), model.rows(table)
    except HwcostError as error:
        for reading in readings:
            _placed(model, reading)
        raise FitError(str(error)) from None
    for index in (torch.zeros(len(readings)).index_add(0, owner, costs.float()) <= 0).nonzero():
        reading = readings[int(index)]
        raise FitError(
            f"{reading.at}: {reading.name!r} costs nothing on {model.platform.name!r};"
            " leave the row out, or give its op a formula"
        )
    names = [*model.platform.engines]
    return [names[i] if i >= 0 else None for i in plan.engine.tolist()]


def _placed(model: CostModel, reading: Reading) -> float:
    """The price of a reading in SI units; an error says where the reading stands."""
    try:
        with torch.no_grad():
            return float(model.total(reading.workload)) * float(model.metric.unit.value)
    except HwcostError as error:
        raise FitError(f"{reading.at}: {error}") from None
