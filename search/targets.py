"""What a cost should come down to: a number, a text such as ``"5 ms"``, or a share ``"50 %"``."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from hwcost.errors import SearchError, UnitError, UnknownName, suggestion
from hwcost.units import Quantity, engineering, parse_quantity, parse_unit

#: A target by itself: a number in the cost's unit, or a text with a unit of its own.
Amount = float | str

#: One target, for a search with one cost, or several by the costs' names.
Targets = Amount | Mapping[str, Amount]

_SHARE = re.compile(r"(%|percent)$")
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


class Priced(Protocol):
    """What a regularizer needs of a search."""

    training: bool

    @property
    def cost_specification(self) -> Mapping[str, object]:
        """The costs by name."""
        ...

    def get_cost(
        self, name: str | None = None, hard: bool = False, relative: bool = False
    ) -> Tensor:
        """Return a cost, a scalar in its unit, or relative to the network before the search."""
        ...

    def cost_unit(self, name: str | None = None) -> str:
        """Return a cost's unit, ``"1"`` or ``""`` if it has none."""
        ...

    def nas_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters that the cost depends on."""
        ...


@dataclass(frozen=True)
class Reading:
    """A cost beside its target.

    Attributes:
        cost: the soft cost, in ``unit``.
        target: in ``unit``.
        strength: what the cost, in the unit that ``get_cost`` returns it in (a share, if the
            target is one), is multiplied by in the loss.
        unit: that of the target; ``"%"`` of the cost before the search, ``"1"`` of plain numbers.
        hard: the exported network's cost when it was last measured, in ``unit``; None if never.
    """

    cost: float
    target: float
    strength: float
    unit: str
    hard: float | None = None

    def __str__(self) -> str:
        parts = f"{_shown(self.cost, self.unit)} of {_shown(self.target, self.unit)}"
        hard = "" if self.hard is None else f", exported {_shown(self.hard, self.unit)}"
        return f"{parts}{hard}, strength {self.strength:.3g}"


@dataclass(frozen=True)
class Target:
    """A cost's name and what it should come down to.

    Attributes:
        name: of the cost.
        goal: what ``cost`` should return at most.
        unit: the one that the target was given in.
        scale: ``goal`` times this is the target in ``unit``.
        share: whether costs are divided by that of the network before the search.
    """

    name: str
    goal: float
    unit: str
    scale: float = 1.0
    share: bool = False

    def cost(self, search: Priced, hard: bool = False) -> Tensor:
        """Return the cost that ``goal`` is meant for, a scalar."""
        return search.get_cost(self.name, hard=hard, relative=self.share)

    def estimate(self, search: Priced) -> Tensor:
        """Return the hard cost as fast as the search knows it, perhaps not exactly."""
        quick = getattr(search, "estimate", None)
        if quick is None:
            return self.cost(search, hard=True)
        estimated: Tensor = quick(self.name, relative=self.share)
        return estimated

    def reading(self, cost: float, strength: float, hard: float | None = None) -> Reading:
        """Return a cost, as ``cost`` returns it, in the target's unit."""
        measured = None if hard is None else hard * self.scale
        return Reading(cost * self.scale, self.goal * self.scale, strength, self.unit, measured)

    def __str__(self) -> str:
        return _shown(self.goal * self.scale, self.unit)


def resolve(search: Priced, targets: Targets) -> tuple[Target, ...]:
    """Return the targets of a search's costs, in the costs' units.

    Raises:
        UnknownName: there is no such cost.
        UnitError: a text is no quantity, or not of the dimension of the cost.
        SearchError: a target is not above 0, or a single one is given for several costs.
    """
    named = targets if isinstance(targets, Mapping) else {cost_name(search, None): targets}
    if not named:
        raise SearchError("no target is given")
    names = [cost_name(search, name) for name in named]
    return tuple(target_of(name, named[name], search.cost_unit(name)) for name in names)


def cost_name(search: Priced, name: str | None) -> str:
    """Return a cost's name, checked; that of the only cost for None.

    Raises:
        UnknownName: there is no such cost.
        SearchError: there are several costs and no name.
    """
    known = list(search.cost_specification)
    if name is None:
        if len(known) != 1:
            names = ", ".join(map(repr, known))
            raise SearchError(f"the search has several costs, {names}: name the one meant")
        return known[0]
    if name not in known:
        raise UnknownName(f"no cost {name!r}{suggestion(name, known)}")
    return name


def non_negative(value: float | Tensor, what: str) -> float:
    """Return a number, detached if it is a tensor.

    Raises:
        SearchError: it is negative, NaN or infinite.
    """
    number = float(value.detach()) if isinstance(value, Tensor) else float(value)
    if not math.isfinite(number) or number < 0:
        raise SearchError(f"{what} is {number}; expected a number that is not negative")
    return number


def target_of(name: str, amount: Amount, unit: str) -> Target:
    """Return what an amount means for a cost in a unit, ``""`` for none.

    Raises:
        UnitError: a text is no quantity, or not of the dimension of the cost.
        SearchError: the amount is not above 0.
    """
    unit = unit or "1"
    if isinstance(amount, str):
        target = _of_text(name, amount, unit)
    elif isinstance(amount, bool) or not isinstance(amount, int | float):
        raise SearchError(f"target {name!r} is {amount!r}; expected a number or such as '5 ms'")
    else:
        target = Target(name, float(amount), unit)
    if not (math.isfinite(target.goal) and target.goal > 0):
        raise SearchError(f"target {name!r} is {amount!r}; expected more than 0")
    return target


def _of_text(name: str, text: str, unit: str) -> Target:
    try:
        quantity = parse_quantity(text)
    except UnitError as error:
        raise UnitError(f"target {name!r}: {error}") from None
    if _SHARE.search(quantity.text):
        return Target(name, float(quantity.value), "%", 100.0, share=True)
    base = parse_unit(unit)
    if quantity.dimension != base.dimension:
        raise UnitError(_misfit(name, quantity, base))
    own = _NUMBER.sub("", quantity.text) or "1"
    scale = base.value / parse_unit(own).value
    return Target(name, float(quantity.value / base.value), own, float(scale))


def _misfit(name: str, quantity: Quantity, base: Quantity) -> str:
    """Say which dimensions a target and its cost have."""
    given, due = (_dimension(q) for q in (quantity, base))
    own = "has no unit" if due == "no unit" else f"is in {base.text}"
    return f"target {name!r} is {quantity.text!r}, which has {given}; the cost {own}"


def _dimension(quantity: Quantity) -> str:
    text = str(quantity.dimension)
    return "no unit" if text == "1" else f"the unit {text}"


def _shown(value: float, unit: str) -> str:
    return f"{value:.3g} %" if unit == "%" else engineering(value, unit)
