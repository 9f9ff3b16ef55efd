"""What pruning should come down to: ``"latency <= 5 ms"``, ``"params <= 0.5"``, ``"50 %"``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hwcost.errors import SearchError, UnknownName
from hwcost.search.costs import Cost, Costs, Specification
from hwcost.search.targets import Target, target_of
from hwcost.workload import Workload

_TARGET = re.compile(r"^\s*(?:(?P<name>[^\d\s<=>][^<=>]*?)\s*<=\s*)?(?P<amount>[^<=>]+?)\s*$")


@dataclass(frozen=True, eq=False)
class Budget:
    """A cost and what it should be at most.

    Attributes:
        costs: the cost, among others perhaps.
        target: which one, and how much.
        before: the cost of the network before pruning.
    """

    costs: Specification
    target: Target
    before: float

    @property
    def goal(self) -> float:
        """What the cost should be at most, in its unit."""
        return self.target.goal * (self.before if self.target.share else 1.0)

    def price(self, workload: Workload) -> float:
        """Return the cost of a table."""
        with torch.no_grad():
            return float(self.costs.price(self.target.name, workload))

    def prices(self, workload: Workload, tables: int) -> Tensor | None:
        """Return the costs of tables that follow one another, (tables,); None if rows do not add.

        Args:
            workload: the tables, all of equal length.
            tables: how many.
        """
        model = self.costs[self.target.name]
        rows = getattr(model, "rows", None)
        if rows is None:
            return None
        with torch.no_grad():
            found: Tensor = rows(workload) * workload.column("weight")
        return found.view(tables, -1).sum(1)


def budget(target: str | float, cost: Costs | None, workload: Workload) -> Budget:
    """Return what a target means.

    Args:
        target: ``"NAME <= AMOUNT"``, or an amount alone where there is one cost: a quantity, a
            share in percent, or a plain number, which is a share up to 1.
        cost: as for ``Search``; the name of a platform stands for its metric NAME; without, NAME
            is a metric of ``counts``.
        workload: the table of the network before pruning.

    Raises:
        SearchError, UnknownName, UnitError: the target or the cost is not understood.
    """
    name, amount = _parts(target)
    costs = _specified(cost, name)
    if name is None or name not in costs.models:
        name = _only(costs, name)
    if isinstance(amount, str) and _is_number(amount):
        amount = float(amount)
    if not isinstance(amount, str) and amount <= 1:
        amount = f"{100 * amount!r} %"
    if not isinstance(amount, str) and costs.unit(name) not in ("", "1", "op"):
        unit = costs.unit(name)
        raise SearchError(f"target {target!r}: {amount:g} of what? the cost {name!r} is in {unit}")
    with torch.no_grad():
        before = float(costs.price(name, workload))
    return Budget(costs, target_of(name, amount, costs.unit(name)), before)


def _specified(cost: Costs | None, name: str | None) -> Specification:
    try:
        return Specification(_named(cost, name))
    except UnknownName as error:
        if cost is not None:
            raise
        raise UnknownName(f"{error}; for that of another platform, say cost='PLATFORM'") from None


def _parts(target: str | float) -> tuple[str | None, str | float]:
    if isinstance(target, int | float) and not isinstance(target, bool):
        return None, float(target)
    found = _TARGET.match(target) if isinstance(target, str) else None
    if found is None:
        raise SearchError(f"target is {target!r}; expected such as 'latency <= 5 ms' or '50 %'")
    return found["name"], found["amount"]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _named(cost: Costs | None, name: str | None) -> Costs:
    if isinstance(cost, Mapping):
        return cost
    if name is None:
        return "counts:params" if cost is None else cost
    if cost is None:
        return {name: f"counts:{name}"}
    whole: Cost = f"{cost}:{name}" if isinstance(cost, str) and ":" not in cost else cost
    return {name: _checked(whole, name)}


def _checked(cost: Cost, name: str) -> Cost:
    """Refuse a metric by a name that is another metric's."""
    metric = getattr(getattr(cost, "metric", None), "name", None)
    if isinstance(cost, str):
        metric = cost.rpartition(":")[2]
    if metric is not None and metric != name:
        raise SearchError(f"the target is for {name!r}, the cost is {metric!r}")
    return cost


def _only(costs: Specification, name: str | None) -> str:
    if name is not None:
        costs[name]  # says which there are
    return costs.only()
