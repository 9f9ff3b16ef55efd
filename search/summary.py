"""What a search has decided so far, in lines that a person reads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hwcost.search.pit_layers import layer_of

if TYPE_CHECKING:
    from hwcost.search.base import Search


@dataclass(frozen=True)
class AxisState:
    """Channels that are decided together: how many are alive, and the layers that make them."""

    name: str
    alive: int
    size: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class CostState:
    """A cost before the search, now, and of what would be exported now, in ``unit``."""

    name: str
    unit: str
    before: float
    soft: float
    hard: float


@dataclass(frozen=True)
class Summary:
    """The state of a search; ``str`` gives a table.

    Attributes:
        axes: channels that are searched.
        decisions: a line for each other decision.
        frozen: layer -> why its channels stay.
        costs: each cost.
    """

    axes: tuple[AxisState, ...]
    decisions: tuple[str, ...]
    frozen: dict[str, str]
    costs: tuple[CostState, ...]

    def __str__(self) -> str:
        axes = [(a.name, f"{a.alive} of {a.size}", _listed(a.layers)) for a in self.axes]
        parts = [
            aligned([("channels", "alive", "layers"), *axes]) if axes else [],
            list(self.decisions),
            aligned([("kept", "why"), *self.frozen.items()]) if self.frozen else [],
            aligned([("cost", "before", "soft", "exported", ""), *map(_cost_row, self.costs)]),
        ]
        return "\n\n".join("\n".join(lines) for lines in parts if lines)


#: How many layers of an axis are named.
_NAMED = 3

#: Units with prefixes in ``str(summary)``.
_PREFIXED = ("s", "J", "B")


def _listed(layers: Sequence[str]) -> str:
    more = len(layers) - _NAMED
    return ", ".join(layers[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _cost_row(cost: CostState) -> tuple[str, ...]:
    values = [readable(value, cost.unit) for value in (cost.before, cost.soft, cost.hard)]
    return cost.name, *values, f"{cost.hard / cost.before:.1%}" if cost.before else ""


def readable(value: float, unit: str) -> str:
    """Return four digits and a unit with a prefix, as in ``45.6 us``."""
    if unit not in _PREFIXED or not value:
        return f"{value:.4g} {unit}" if unit not in ("", "1") else f"{value:,.0f}"
    if unit == "B":
        power = 1 if value >= 1024 else 0
        return f"{value / 1024**power:.4g} {('B', 'KiB')[power]}"
    steps = min(max(0, math.ceil(-math.log10(value) / 3)), 4)
    return f"{value * 1000**steps:.4g} {('', 'm', 'u', 'n', 'p')[steps]}{unit}"


def summarise(search: "Search") -> Summary:
    """Return what a search has decided; see ``Search.summary``."""
    with torch.no_grad():
        return _summary(search)


def _summary(search: "Search") -> Summary:
    alive = search.alive.hard()
    searched = search.alive.searched()
    axes = tuple(
        AxisState(
            axis.name,
            int(alive[axis.start : axis.start + axis.size].sum()),
            axis.size,
            tuple(map(layer_of, axis.producers)),
        )
        for axis in search.channels.axes
        if axis.name in searched
    )
    costs = tuple(
        CostState(
            name,
            search.cost_unit(name),
            float(search.reference[name]),
            float(search.get_cost(name)),
            float(search.get_cost(name, hard=True)),
        )
        for name in search.cost_specification
    )
    frozen = {layer_of(name) or name: why for name, why in search.kept().items()}
    lines = tuple(line for method in search.each_method() for line in method.summary())
    return Summary(axes, lines, frozen, costs)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, their columns below one another."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in rows]
