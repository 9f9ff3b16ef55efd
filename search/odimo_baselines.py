"""Mappings that need no search, to hold a search against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwcost.errors import UnknownName, suggestion
from hwcost.search.odimo_mapping import Table
from hwcost.search.odimo_splits import Counts, Splits
from hwcost.search.summary import readable
from hwcost.workload import Workload

if TYPE_CHECKING:
    from hwcost.search.odimo_method import ODiMOMethod


@dataclass(frozen=True)
class Baseline:
    """A mapping and what it costs.

    Attributes:
        name: of the mapping.
        cost: by the search's metric, in its unit.
        channels: layer -> engine -> how many output channels it computes.
    """

    name: str
    cost: float
    channels: Mapping[str, Mapping[str, int]]

    def on(self, engine: str) -> int:
        """Return how many channels an engine computes in all."""
        return sum(counts.get(engine, 0) for counts in self.channels.values())


@dataclass(frozen=True)
class BaselineTable:
    """Mappings side by side; ``str`` gives a table.

    Attributes:
        rows: the mappings.
        engines: names, in the platform's order.
        metric, unit: what costs are.
    """

    rows: tuple[Baseline, ...]
    engines: tuple[str, ...]
    metric: str
    unit: str

    def __getitem__(self, name: str) -> Baseline:
        """Return a mapping by its name.

        Raises:
            UnknownName: there is none.
        """
        found = {row.name: row for row in self.rows}
        if name not in found:
            raise UnknownName(f"no baseline {name!r}{suggestion(name, found)}")
        return found[name]

    def relative(self, row: Baseline) -> float:
        """Return a cost over that of the first mapping."""
        return row.cost / self.rows[0].cost if self.rows[0].cost else 1.0

    def __str__(self) -> str:
        header = ("mapping", self.metric, "relative", *(f"on {name}" for name in self.engines))
        rows = [
            (
                row.name,
                readable(row.cost, self.unit),
                f"{self.relative(row):.1%}",
                *(str(row.on(name)) for name in self.engines),
            )
            for row in self.rows
        ]
        return str(Table(header, tuple(rows)))


#: Names of the mappings beside those on one engine.
BEST_ENGINE, BEST_SPLIT, PRESENT = "best engine for each layer", "min-cost split", "this search"


def baselines(method: "ODiMOMethod", table: Workload, present: Workload) -> BaselineTable:
    """Return what mappings cost: all on one engine, the cheapest ones, and the present one.

    The cheapest engine of a layer, and the cheapest split of its channels over engines, are found
    layer by layer; accuracy plays no part.

    Args:
        method: of the search, its only one.
        table: the search's, with a row for every engine that can compute an op.
        present: that of the exported network.
    """
    splits = Splits(method, table.structure)
    engines = tuple(method.platform.engines)
    layers = range(len(method.layers))
    found = [
        _baseline(splits, f"all on {engine}", [splits.only(n, engine) for n in layers])
        for engine in engines
        if all(any(o.engine == engine for o in w.options) for w in method.layers)
    ]
    whole = [splits.cheapest(number, whole=True) for number in layers]
    best = [splits.cheapest(number, whole=False) for number in layers]
    chosen = method.chosen()
    counts = [splits.counted(n, [chosen[n][i] for i in method.kept(n).tolist()]) for n in layers]
    now = Baseline(PRESENT, float(method.costs.total(present)), splits.channels(counts))
    rows = [_baseline(splits, BEST_ENGINE, whole), _baseline(splits, BEST_SPLIT, best), now]
    costs = method.costs
    return BaselineTable((*found, *rows), engines, costs.metric.name, costs.unit)


def _baseline(splits: Splits, name: str, counts: Sequence[Counts]) -> Baseline:
    return Baseline(name, splits.cost(counts), splits.channels(counts))
