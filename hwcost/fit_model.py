"""What a platform predicts for measured ops as a function of the params that are to be fitted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hwcost.costmodel import CostModel
from hwcost.errors import FitError, HwcostError
from hwcost.fit_open import OpenModel
from hwcost.fit_params import FitParam, fit_params
from hwcost.formula import symbol
from hwcost.measurements import Reading
from hwcost.plan import Group as PlanGroup
from hwcost.plan import Plan
from hwcost.platform import Metric, Platform
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


@dataclass(frozen=True, eq=False)
class Group:
    """Readings of one metric at one operating point.

    Attributes:
        readings: their places among all, int64, shape ``(readings,)``.
        owner: the reading of each row of the table, counted in this group, shape ``(rows,)``.
        params: those that the platform has at this point, with their places among all.
    """

    model: OpenModel
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
        self.platform, self.readings, self.params = platform, tuple(readings), tuple(params)
        self.platforms = at_points(platform, readings)
        self.measured = torch.tensor([r.value for r in readings], dtype=torch.float64)
        keys = dict.fromkeys((r.point, r.metric) for r in readings)
        self.groups = [self._group(*key) for key in keys]
        self._check_costs()

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
        table = table.with_engines(_checked_engines(closed, table, mine))
        places = {param.loc: i for i, param in enumerate(self.params)}
        here = fit_params(self.platforms[point])
        params = tuple((places[p.loc], p) for p in here)
        return Group(OpenModel(closed), table, torch.tensor(chosen), owner, params)

    def _check_costs(self) -> None:
        """Check that every reading has a price: by the platform's values or in mid-bounds."""
        middle = torch.tensor([p.spread(0.5) for p in self.params], dtype=torch.float64)
        for index in ((self.own() <= 0) & (self(middle) <= 0)).nonzero().flatten().tolist():
            reading = self.readings[index]
            raise FitError(
                f"{reading.at}: {reading.name!r} costs nothing on {self.platform.name!r};"
                " leave the row out, or give its op a formula"
            )

    def own(self) -> Tensor:
        """Return predictions by the platform's values, SI units, shape ``(readings,)``."""
        here = {p.loc: p.start for one in self.platforms.values() for p in fit_params(one)}
        return self(torch.tensor([here[p.loc] for p in self.params], dtype=torch.float64))

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
    return Predictor(platform, readings, open_params(platform, readings)).own()


def open_params(platform: Platform, readings: Sequence[Reading]) -> tuple[FitParam, ...]:
    """Return the params that may change, at every operating point of the readings.

    Raises:
        FitError: the platform has not such a point.
    """
    found = {p.loc: p for here in at_points(platform, readings).values() for p in fit_params(here)}
    return tuple(found.values())


def _checked_engines(
    model: CostModel, table: Workload, readings: Sequence[Reading]
) -> list[str | None]:
    """The engine of each row; every reading has a price."""
    try:
        plan = model.plan(table)
        model.rows(table)
    except HwcostError as error:
        for reading in readings:
            _check_priced(model, reading)
        raise FitError(str(error)) from None
    names = [*model.platform.engines]
    return [names[i] if i >= 0 else None for i in plan.engine.tolist()]


def _check_priced(model: CostModel, reading: Reading) -> None:
    """Raise an error that says where the reading stands, if it has no price."""
    try:
        with torch.no_grad():
            model.total(reading.workload)
    except HwcostError as error:
        raise FitError(f"{reading.at}: {error}") from None
