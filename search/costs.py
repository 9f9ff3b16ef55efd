"""What a search is told to spend less of: cost models, their names, or functions of the table."""

from collections.abc import Callable, Mapping

from torch import Tensor

from hwcost.costmodel import CostModel
from hwcost.errors import CostError, SearchError, UnknownName, did_you_mean
from hwcost.workload import Workload

#: A cost: a CostModel, its spelling "platform:metric", or a function of the op table.
Cost = CostModel | str | Callable[[Workload], Tensor]

#: One cost, or several by name.
Costs = Cost | Mapping[str, Cost]


class Specification:
    """Named costs, each a function from an op table to a scalar tensor."""

    def __init__(self, costs: Costs) -> None:
        named = dict(costs) if isinstance(costs, Mapping) else {_name_of(costs): costs}
        if not named:
            raise SearchError("no cost is given")
        self.models = {str(name): _resolved(cost) for name, cost in named.items()}

    def __getitem__(self, name: str) -> CostModel | Callable[[Workload], Tensor]:
        if name not in self.models:
            names = ", ".join(map(repr, self.models))
            raise UnknownName(f"no cost {name!r}{did_you_mean(name, self.models)}; known: {names}")
        return self.models[name]

    def only(self) -> str:
        """Return the name of the only cost.

        Raises:
            SearchError: there are several.
        """
        if len(self.models) > 1:
            names = ", ".join(map(repr, self.models))
            raise SearchError(f"the search has several costs, {names}: use get_cost(name)")
        return next(iter(self.models))

    def unit(self, name: str) -> str:
        """Return the unit of a cost, "" for a plain function's."""
        model = self[name]
        return model.unit if isinstance(model, CostModel) else ""

    def price(self, name: str, workload: Workload, smooth: float | None = None) -> Tensor:
        """Return a cost of a table, a scalar.

        Args:
            smooth: as for ``CostModel.total``; functions have nothing to do with it.

        Raises:
            CostError: a function returned something else.
        """
        model = self[name]
        if isinstance(model, CostModel):
            return model.total(workload, smooth=smooth)
        value = model(workload)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise CostError(f"cost {name!r} returned {_what(value)}; expected a scalar tensor")
        return value.reshape(())


def _name_of(cost: Cost) -> str:
    if isinstance(cost, str):
        return cost
    if isinstance(cost, CostModel):
        return f"{cost.platform.name}:{cost.metric.name}"
    return getattr(cost, "__name__", "cost")


def _resolved(cost: Cost) -> CostModel | Callable[[Workload], Tensor]:
    if isinstance(cost, str):
        platform, _, metric = cost.rpartition(":")
        if not platform:
            raise SearchError(f"cost {cost!r} names no metric; write 'PLATFORM:METRIC'")
        return CostModel(platform, metric)
    if not callable(cost) and not isinstance(cost, CostModel):
        raise SearchError(
            f"a cost is a CostModel, 'PLATFORM:METRIC' or a function; got {type(cost).__name__}"
        )
    return cost


def _what(value: object) -> str:
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return f"a {type(value).__name__}{shape}"
