"""Splits of layers' channels over engines, and what they cost: many of them in one table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hwcost.costmodel import CostModel
from hwcost.search.options import Option
from hwcost.search.quantized_layers import titles
from hwcost.structure import Structure
from hwcost.workload import Workload

if TYPE_CHECKING:
    from hwcost.search.odimo_method import ODiMOMethod

#: How many channels of a layer each of its options gets.
Counts = tuple[int, ...]

#: At most so many splits of a layer are priced; of more, every second, fourth, ... is.
MOST_SPLITS = 20_000


@dataclass(frozen=True)
class Line:
    """A row of a search's table: one option of a layer, or what has none.

    Attributes:
        row: its place.
        op: its op.
        number: of the layer, -1 without.
        option: the place of its option among the layer's.
        part: the share of the layer's channels that the row's op computes.
    """

    row: int
    op: int
    number: int = -1
    option: int = 0
    part: float = 1.0


class Splits:
    """Prices splits of layers over engines.

    Args:
        method: which layers, and their options.
        structure: of the search's table.
    """

    def __init__(self, method: "ODiMOMethod", structure: Structure) -> None:
        self.method, self.structure = method, structure
        self.lines = tuple(_lines(method, structure))

    def only(self, number: int, engine: str) -> Counts:
        """Return the counts of a layer that is on one engine."""
        weight = self.method.layers[number]
        return tuple(weight.channels * (o.engine == engine) for o in weight.options)

    def counted(self, number: int, chosen: Sequence[Option]) -> Counts:
        """Return the counts of a layer's options among its channels."""
        return tuple(list(chosen).count(o) for o in self.method.layers[number].options)

    def channels(self, counts: Sequence[Counts]) -> dict[str, dict[str, int]]:
        """Return by layer how many channels each engine has."""
        layers = self.method.layers
        return {
            title: {o.engine: n for o, n in zip(weight.options, own, strict=True) if n}
            for title, weight, own in zip(titles(layers), layers, counts, strict=True)
        }

    def cost(self, counts: Sequence[Counts]) -> float:
        """Return what a network costs whose layers' options have these counts."""
        picks = [(line, self._size(line, counts[line.number])) for line in self.lines]
        workload = self._table([(line, line.op, size) for line, size in picks if size])
        return float(self.method.costs.total(workload))

    def cheapest(self, number: int, whole: bool) -> Counts:
        """Return the cheapest split of a layer, or, if whole, the cheapest of its engines.

        Of equally cheap ones it is the one with most channels at most bits.
        """
        candidates, costs = self._priced[number]
        allowed = [max(c) == sum(c) for c in candidates] if whole else [True] * len(candidates)
        masked = costs.masked_fill(~torch.tensor(allowed), torch.inf)
        first = (masked <= masked.min() * (1 + 1e-12)).int().argmax()
        return candidates[int(first)]

    @cached_property
    def _priced(self) -> list[tuple[list[Counts], Tensor]]:
        """Return the splits of each layer, and the cost of each; priced in one table."""
        candidates = [
            list(_splits(weight.channels, len(weight.options))) for weight in self.method.layers
        ]
        picks: list[tuple[Line, int, float]] = []
        starts: list[tuple[int, int]] = []
        ops = 0
        for number, own in enumerate(candidates):
            lines = [line for line in self.lines if line.number == number]
            runs = {op: i for i, op in enumerate(dict.fromkeys(line.op for line in lines))}
            starts.append((ops, len(runs)))
            for counts in own:
                sizes = [(line, self._size(line, counts)) for line in lines]
                picks += [(line, ops + runs[line.op], size) for line, size in sizes if size]
                ops += len(runs)
        costs = op_costs(self.method.costs, self._table(picks))
        found = []
        for own, (start, each) in zip(candidates, starts, strict=True):
            found.append((own, costs[start : start + len(own) * each].view(len(own), each).sum(1)))
        return found

    def _size(self, line: Line, counts: Counts) -> float:
        """Return how many channels a row has; rows of no layer have all."""
        return 1.0 if line.number < 0 else counts[line.option] * line.part

    def _table(self, picks: Sequence[tuple[Line, int, float]]) -> Workload:
        """Return a table of rows with numbers of channels; each is of an op."""
        return Workload(_selected(self.structure, self.method, picks))


def _lines(method: "ODiMOMethod", structure: Structure) -> Iterator[Line]:
    """Yield every row of a search's table, which has each traced row once for each option."""
    ops = structure.ops.tolist()
    variants = method.variants()
    assert method._entries is not None
    parts, row, traced = method._entries.of_row, 0, 0
    while row < len(ops):
        part = parts.get(traced)
        for option in range(len(variants.get(traced, (None,)))):
            if part is None:
                yield Line(row, ops[row])
            else:
                share = (part.stop - part.start) / method.layers[part.number].channels
                yield Line(row, ops[row], part.number, option, share)
            row += 1
        traced += 1


def _selected(
    old: Structure, method: "ODiMOMethod", picks: Sequence[tuple[Line, int, float]]
) -> Structure:
    """Return the structure of some rows of another, their channels as given."""
    rows = torch.tensor([line.row for line, _, _ in picks])
    whole = {name: column[rows] for name, column in old.traced.items()}
    sizes = torch.tensor([size for _, _, size in picks], dtype=torch.float64)
    owned = torch.tensor([line.number >= 0 for line, _, _ in picks])
    depthwise = owned & (whole["groups"] > 1) & (whole["groups"] == whole["cin"])
    depthwise &= whole["cout"] == whole["cin"]
    traced = dict(whole)
    traced["cout"] = torch.where(owned, sizes, whole["cout"])
    for name in ("cin", "groups"):
        traced[name] = torch.where(depthwise, sizes, whole[name])
    return replace(
        old,
        layers=tuple(old.layers[line.row] for line, _, _ in picks),
        kind_codes=old.kind_codes[rows],
        traced=traced,
        ops=torch.tensor([op for _, op, _ in picks]),
        engines=tuple(old.engines[line.row] for line, _, _ in picks),
        functions=tuple(old.functions[line.row] for line, _, _ in picks) if old.functions else (),
        buffers=None,
        cases=None,
        unsplit={name: whole[name] for name in ("cin", "cout", "groups")},
    )


def op_costs(model: CostModel, workload: Workload) -> Tensor:
    """Return what each op costs, shape ``(ops,)``, where rows of one are on different engines."""
    rows = model.rows(workload).detach()
    if not model.metric.needs_ops:
        rows = rows * workload.column("weight")
    together = "sum" if model.metric.needs_ops or model.metric.engines != "max" else "amax"
    none = rows.new_zeros(workload.structure.n_ops)
    return none.scatter_reduce(0, workload.structure.ops, rows, together)


def _splits(channels: int, options: int) -> Iterator[Counts]:
    """Yield the ways to split channels over options, most on the first ones first."""
    step = 1
    while comb(channels // step + options - 1, options - 1) > MOST_SPLITS:
        step *= 2
    rest = channels % step
    for counts in _parts(channels // step, options):
        yield (counts[0] * step + rest, *(count * step for count in counts[1:]))
    if rest:
        yield from (tuple(channels * (o == i) for o in range(options)) for i in range(1, options))


def _parts(total: int, parts: int) -> Iterator[Counts]:
    if parts == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for others in _parts(total - first, parts - 1):
            yield (first, *others)
