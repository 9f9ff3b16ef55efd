"""What a search has decided so far, in lines that a person reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

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
        rows = [("channels", "alive", "layers")]
        rows += [(a.name, f"{a.alive} of {a.size}", ", ".join(a.layers)) for a in self.axes]
        lines = _aligned(rows) if self.axes else []
        lines += self.decisions
        if self.frozen:
            lines += _aligned([("kept", "why"), *self.frozen.items()])
        for cost in self.costs:
            unit = f" {cost.unit}" if cost.unit.strip("1") else ""
            lines.append(
                f"{cost.name}: {cost.before:.4g}{unit} before, {cost.soft:.4g} soft, "
                f"{cost.hard:.4g} exported ({cost.hard / cost.before:.1%})"
                if cost.before
                else f"{cost.name}: 0{unit} before, {cost.hard:.4g} exported"
            )
        return "\n".join(lines)


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
            tuple(name.rpartition(".")[0] for name in axis.producers),
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
    frozen = {name.rpartition(".")[0] or name: why for name, why in search.kept().items()}
    lines = tuple(line for method in search.each_method() for line in method.summary())
    return Summary(axes, lines, frozen, costs)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
