"""Terms of a loss that make a search spend less: one cost times a strength, and DUCCIO."""

import math
from collections.abc import Mapping

from torch import Tensor

from hwcost.errors import SearchError
from hwcost.search.regularizers_constraint import Constraint as Constraint
from hwcost.search.targets import (
    Priced,
    Reading,
    Target,
    Targets,
    cost_name,
    non_negative,
    resolve,
)

#: A strength is worked out of an excess of at least this share of the target.
LEAST_EXCESS = 0.01

#: The strengths' share of their final values in the first epoch.
RAMP_START = 0.01


class BaseRegularizer:
    """A cost times a strength: ``loss = task_loss + regularizer(search)``.

    Args:
        cost_name: which cost; None for the only one.
        strength: in 1 / unit of the cost.

    Raises:
        SearchError: the strength is negative or NaN.
    """

    def __init__(self, cost_name: str | None = None, strength: float = 1.0) -> None:
        self.cost_name = cost_name
        self.strength = non_negative(strength, "strength")

    def __call__(self, search: Priced) -> Tensor:
        """Return the term, a scalar.

        Raises:
            UnknownName: there is no such cost.
        """
        return self.strength * search.get_cost(cost_name(search, self.cost_name))

    def report(self, search: Priced) -> str:
        """Return the cost and the strength, for people."""
        name = cost_name(search, self.cost_name)
        reading = Target(name, 1.0, search.cost_unit(name) or "1").reading(
            float(search.get_cost(name).detach()), self.strength
        )
        return f"{name}: {reading.cost:.4g} {reading.unit}, strength {self.strength:.3g}"

    def __repr__(self) -> str:
        return f"BaseRegularizer({self.cost_name!r}, {self.strength:g})"


class DUCCIO:
    """The sum of ``strength * max(0, cost - target)`` over several targets.

    The strengths grow from 1 % to 100 % of their final values over the first half of the epochs,
    in equal steps. Unless given, a final strength is ``task_loss / (cost - target)`` at first use,
    when the excess then weighs as much as the task. A cost that starts at or below its target, or
    less than 1 % above, counts as 1 % above: should it grow later, that much weighs as the task.

    Args:
        targets: by the names of the costs: numbers in the cost's unit, ``"5 ms"``, ``"64 KiB"``,
            or ``"50 %"`` of the cost before the search. One alone if the search has one cost.
        task_loss: a typical value of the task's loss before the search.
        final_strengths: in place of ``task_loss``, one for each target, in 1 / unit of the cost
            (for a target in %, of the share).

    Raises:
        SearchError: neither or both of the last two are given, a strength is negative or NaN, or
            ``task_loss`` is not above 0.

    Source:
        arXiv:2206.00302 for several costs in one loss, arXiv:2310.07217 for targets.
    """

    def __init__(
        self,
        targets: Targets,
        task_loss: float | Tensor | None = None,
        final_strengths: Mapping[str, float] | float | None = None,
    ) -> None:
        if (task_loss is None) == (final_strengths is None):
            raise SearchError("DUCCIO needs either task_loss or final_strengths")
        self.targets = dict(targets) if isinstance(targets, Mapping) else targets
        self._task_loss = None if task_loss is None else _positive(task_loss, "task_loss")
        self._given = _strengths(targets, final_strengths)
        self._resolved: tuple[Target, ...] = ()
        self._ramp = 0.0
        self._costs: dict[str, Tensor] = {}
        #: Final strengths by name of the cost, once they are known.
        self.final_strengths: dict[str, float] = {}

    def __call__(self, search: Priced, epoch: float = 0, n_epochs: int = 1) -> Tensor:
        """Return the term, a scalar.

        Args:
            search: whose costs.
            epoch: counted from 0; fractions ramp within an epoch.
            n_epochs: of the whole search.

        Raises:
            UnknownName, UnitError, SearchError: a target does not fit the search's costs.
        """
        if not self._resolved:
            self._resolved = resolve(search, self.targets)
        self._ramp = _ramp(epoch, n_epochs)
        costs = [target.cost(search) for target in self._resolved]
        if not self.final_strengths:
            self.final_strengths = self._first_strengths(costs)
        terms = [self._term(t, cost) for t, cost in zip(self._resolved, costs, strict=True)]
        return sum(terms[1:], start=terms[0])

    def _term(self, target: Target, cost: Tensor) -> Tensor:
        self._costs[target.name] = cost.detach()
        strength = self._ramp * self.final_strengths[target.name]
        return strength * (cost - target.goal).clamp(min=0)

    def _first_strengths(self, costs: list[Tensor]) -> dict[str, float]:
        if self._task_loss is None:
            only = self._given.get("", 0.0)
            return {t.name: self._given.get(t.name, only) for t in self._resolved}
        loss, pairs = self._task_loss, zip(self._resolved, costs, strict=True)
        return {t.name: loss / _excess(t, float(cost.detach())) for t, cost in pairs}

    def report(self) -> dict[str, Reading]:
        """Return costs, targets and present strengths of the last call, by name."""
        return {
            target.name: target.reading(
                float(self._costs[target.name]), self._ramp * self.final_strengths[target.name]
            )
            for target in self._resolved
            if target.name in self._costs
        }

    def state_dict(self) -> dict[str, object]:
        """Return the strengths, which were worked out at first use."""
        return {"final_strengths": dict(self.final_strengths)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on with the strengths of another run.

        Raises:
            SearchError: they are of other targets.
        """
        strengths = state.get("final_strengths")
        if not isinstance(strengths, Mapping):
            raise SearchError("the state is not one of a DUCCIO: no 'final_strengths' in it")
        due = set(self.targets) if isinstance(self.targets, dict) else set(strengths)
        if strengths and set(strengths) != due:
            raise SearchError(f"the state is of {sorted(strengths)}; expected {sorted(due)}")
        self.final_strengths = {n: non_negative(s, n) for n, s in strengths.items()}

    def __repr__(self) -> str:
        if not self._costs:
            return f"DUCCIO({self.targets!r})"
        return f"DUCCIO({'; '.join(f'{name}: {r}' for name, r in self.report().items())})"


def _positive(value: float | Tensor, what: str) -> float:
    number = non_negative(value, what)
    if number == 0:
        raise SearchError(f"{what} is 0: the targets would weigh nothing")
    return number


def _strengths(targets: Targets, given: Mapping[str, float] | float | None) -> dict[str, float]:
    """Return the strengths that were given, by name; ``""`` for the only one."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if isinstance(targets, Mapping) and len(targets) > 1:
            raise SearchError("final_strengths is one number for several targets; give a dict")
        return {"": non_negative(given, "strength")}
    if isinstance(targets, Mapping) and set(given) != set(targets):
        raise SearchError(f"final_strengths are of {sorted(given)}; expected {sorted(targets)}")
    return {name: non_negative(value, f"strength {name!r}") for name, value in given.items()}


def _excess(target: Target, cost: float) -> float:
    if not math.isfinite(cost):
        raise SearchError(f"cost {target.name!r} is {cost}")
    return max(cost - target.goal, LEAST_EXCESS * target.goal)


def _ramp(epoch: float, n_epochs: int) -> float:
    if n_epochs < 1 or not epoch >= 0:
        raise SearchError(f"epoch {epoch} of {n_epochs}; expected 0 <= epoch < n_epochs")
    return min(1.0, RAMP_START + (1 - RAMP_START) * epoch / (n_epochs / 2))
