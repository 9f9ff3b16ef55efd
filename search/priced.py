"""What a search costs."""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from hwcost.errors import PrecisionError
from hwcost.search.costs import Cost, Costs, Specification
from hwcost.search.trained import Trained
from hwcost.workload import Workload


class Priced(Trained):
    """A network in search whose op table has prices.

    Attributes:
        workload_reference: the table before the search; what ``relative`` costs refer to.
        reference: name -> the cost of that table.
    """

    workload_reference: Workload
    reference: Mapping[str, Tensor]
    _costs: Specification

    @abstractmethod
    def workload(self, hard: bool = False) -> Workload:
        """Return the op table: of the soft decisions, or, if hard, of the exported network."""

    @abstractmethod
    def table(self, decisions: Tensor) -> Workload:
        """Return the op table at a vector of decisions."""

    @abstractmethod
    def hard_table(self) -> Workload:
        """Return the op table of what is decided now, without exporting."""

    @property
    def cost(self) -> Tensor:
        """The cost of the present soft decisions, a scalar; only if the search has one cost."""
        return self.get_cost()

    @property
    def cost_specification(self) -> dict[str, Cost]:
        """The costs by name; set it to any form that ``cost=`` takes."""
        return dict(self._costs.models)

    @cost_specification.setter
    def cost_specification(self, costs: Costs | Specification) -> None:
        found = costs if isinstance(costs, Specification) else Specification(costs)
        with torch.no_grad():
            reference = {n: found.price(n, self.workload_reference) for n in found.models}
            table = self.workload()
            self._check_priced(found, table)  # or it shows in the middle of training
        self._costs, self.reference = found, reference

    def _check_priced(self, costs: Specification, table: Workload) -> None:
        try:
            for name in costs.models:
                costs.price(name, table)
        except PrecisionError as error:
            hints = "".join(method.bits_hint for method in self.each_method())
            raise PrecisionError(f"{error}{hints}") from None

    @torch.no_grad()
    def price(self, name: str, decisions: Tensor) -> float:
        """Return a cost at a vector of decisions, off the table."""
        return float(self._costs.price(name, self.table(decisions)))

    def cost_unit(self, name: str | None = None) -> str:
        """Return the unit of a cost, "" where it has none."""
        return self._costs.unit(name or self._costs.only())

    def get_cost(
        self, name: str | None = None, hard: bool = False, relative: bool = False
    ) -> Tensor:
        """Return a cost of the present decisions, a scalar.

        Args:
            name: which cost, if there are several.
            hard: the cost of what ``export`` returns now, without a gradient; otherwise that of
                the soft decisions, differentiable in them.
            relative: divide by the cost of the network before the search.

        Raises:
            UnknownName: no such cost.
            SearchError: several costs and no name, or a decision is NaN.
        """
        name = self._costs.only() if name is None else name
        self._costs[name]
        try:
            cost = self._costs.price(name, self.workload(hard), None if hard else self._smooth)
        except ValueError:
            self.refuse_nan()
            raise
        return cost / self.reference[name].to(cost) if relative else cost

    @property
    def _smooth(self) -> float | None:
        """How smooth the maximum over engines in a loss is: as the first method says that does."""
        found = (method.smooth for method in self.each_method())
        return next((p for p in found if p is not None), None)

    @torch.no_grad()
    def estimate(self, name: str | None = None, relative: bool = False) -> Tensor:
        """Return a cost of what ``export`` would return now, off the table, without exporting.

        A hundred times as fast as ``get_cost(hard=True)``, and equal to it unless the smaller
        network is priced by other formulas, as a convolution left with one group is.
        """
        name = self._costs.only() if name is None else name
        cost = self._costs.price(name, self.hard_table())
        return cost / self.reference[name].to(cost) if relative else cost
