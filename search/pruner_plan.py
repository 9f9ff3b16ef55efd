"""Which channels to remove until a cost is low enough: the least important for what they save."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from hwcost.search.pruner_lines import Line
from hwcost.search.pruner_targets import Budget
from hwcost.search.table import Table

#: How many sizes of an axis are priced at once.
TABLES = 64

#: How many, where the cost is no sum over rows, and each takes a call of its own.
FEW = 12


class Block(NamedTuple):
    """Classes that go together, as they empty a tile of the hardware, say.

    Attributes:
        ratio: what they matter for what they save.
        line: the number of their line.
        steps: how many of that line are gone then.
        cost: what the network costs then.
    """

    ratio: float
    line: int
    steps: int
    cost: float


@dataclass
class Plan:
    """Which classes are alive while they are removed block by block.

    Args:
        table: the op table by classes of channels.
        budget: the cost.
        lines: what may go.
        alive: 1 for each class that is there, float64.
    """

    table: Table
    budget: Budget
    lines: Sequence[Line]
    alive: Tensor
    cost: float = field(init=False)

    def __post_init__(self) -> None:
        self.cost = self.budget.price(self.table(self.alive))

    def least(self) -> float:
        """Return the cost with all gone that may go."""
        alive = self.alive.clone()
        for line in self.lines:
            alive[line.order[: line.steps[-1]]] = 0
        return self.budget.price(self.table(alive))

    def prune(self, goal: float, *, evenly: bool) -> None:
        """Remove channels until the cost is at most ``goal``, or nothing is left to remove."""
        if evenly:
            self.evenly(goal)
        else:
            self.globally(goal)
        self.give_back()

    def globally(self, goal: float) -> None:
        """Remove blocks of all layers, those first that matter least for what they save."""
        heap = [block for n in range(len(self.lines)) if (block := self._best(n)) is not None]
        heapq.heapify(heap)
        while self.cost > goal:
            if not heap:
                if not self._push():
                    return
                heap = [b for n in range(len(self.lines)) if (b := self._best(n)) is not None]
                heapq.heapify(heap)
                continue
            first = heapq.heappop(heap)
            block = self._best(first.line)  # others went since: what it saves has changed
            if block is None:
                continue
            if heap and block.ratio > heap[0].ratio * (1 + 1e-9) and block != first:
                heapq.heappush(heap, block)
                continue
            block = self._enough(block, goal)
            self._take(block.line, block.steps)
            self.cost = block.cost
            following = self._best(block.line)
            if following is not None:
                heapq.heappush(heap, following)

    def evenly(self, goal: float) -> None:
        """Remove the same share of every layer, the least that will do."""
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if self._price_of(middle) <= goal else (middle, high)
        for number, line in enumerate(self.lines):
            self._take(number, _share(line, high))
        self.cost = self.budget.price(self.table(self.alive))

    def give_back(self) -> None:
        """Keep what costs nothing: channels that share a tile with others that stay."""
        for line in self.lines:
            options = [step for step in line.steps if step <= line.taken]
            whole = self.alive.clone()
            whole[line.order] = 1
            costs = self._costs(whole, line.order, options)
            free = costs <= costs[-1] * (1 + 1e-12)
            kept = options[int(free.to(torch.int8).argmax())]
            self.alive[line.order[kept : line.taken]] = 1
            line.taken = kept
        self.cost = self.budget.price(self.table(self.alive))

    def _best(self, number: int) -> Block | None:
        """Return the block of a line that matters least for what it saves."""
        line = self.lines[number]
        steps = line.next_steps(TABLES if self._adds_up() else FEW)
        if not steps:
            return None
        left = line.order[line.taken :]
        costs = self._costs(self.alive, left, [step - line.taken for step in steps])
        saved = self.cost - costs
        lost = line.lost[torch.tensor(steps)] - line.lost[line.taken]
        ratio = torch.where(saved > 1e-9 * self.cost, lost / saved, torch.inf)
        place = int(ratio.argmin())
        if not torch.isfinite(ratio[place]):
            return None
        return Block(float(ratio[place]), number, steps[place], float(costs[place]))

    def _enough(self, block: Block, goal: float) -> Block:
        """Return the part of a last block that is enough."""
        line = self.lines[block.line]
        steps = [step for step in line.steps if line.taken < step <= block.steps]
        if block.cost > goal or len(steps) < 2:
            return block
        left = line.order[line.taken :]
        costs = self._costs(self.alive, left, [step - line.taken for step in steps]).tolist()
        enough = ((s, c) for s, c in zip(steps, costs, strict=True) if c <= goal)
        steps_gone, cost = next(enough, (block.steps, block.cost))
        return Block(block.ratio, block.line, steps_gone, cost)

    def _push(self) -> bool:
        """Remove the least important block where no line alone saves anything."""
        open_lines = [(n, line.next_steps(1)) for n, line in enumerate(self.lines)]
        options = [
            (float(self.lines[n].lost[s[0]] - self.lines[n].lost[self.lines[n].taken]), n, s[0])
            for n, s in open_lines
            if s
        ]
        if not options:
            return False
        _, number, steps = min(options)
        self._take(number, steps)
        self.cost = self.budget.price(self.table(self.alive))
        return True

    def _take(self, number: int, steps: int) -> None:
        line = self.lines[number]
        self.alive[line.order[line.taken : steps]] = 0
        line.taken = max(line.taken, steps)

    def _price_of(self, share: float) -> float:
        alive = self.alive.clone()
        for line in self.lines:
            alive[line.order[: _share(line, share)]] = 0
        return self.budget.price(self.table(alive))

    def _costs(self, alive: Tensor, order: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the costs with the first of ``order`` gone, for each count; float64."""
        if not self._adds_up():
            costs = [self._cost(alive, order[:count]) for count in counts]
            return torch.tensor(costs, dtype=torch.float64)
        found: list[Tensor] = []
        for start in range(0, len(counts), TABLES):
            part = list(counts[start : start + TABLES])
            padded = torch.tensor(part + part[-1:] * (TABLES - len(part)))
            priced = self.budget.prices(self.table.shrinking(alive, order, padded), TABLES)
            assert priced is not None  # as they add up
            found.append(priced[: len(part)])
        return torch.cat(found)

    def _cost(self, alive: Tensor, gone: Tensor) -> float:
        left = alive.index_fill(0, gone, 0)
        return self.budget.price(self.table(left))

    def _adds_up(self) -> bool:
        """Whether the cost is the sum of its rows."""
        if self._sum is None:
            now = self.table(self.alive)
            rows = self.budget.prices(now, 1)
            price = self.budget.price(now)
            self._sum = rows is not None and abs(float(rows[0]) - price) <= 1e-9 * abs(price)
        return self._sum

    _sum: bool | None = field(default=None, init=False, repr=False)


def _share(line: Line, share: float) -> int:
    """Return how many of a line go where a share of its axis does."""
    wanted = share * line.axis.size
    return max(step for step in line.steps if step <= wanted)
