"""Higher precision for free: where a platform computes in tiles, channels that fill one up.

Source:
    The idea, for one accelerator: Motetti et al., arXiv:2407.01054, section on NE16.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hwcost.errors import SearchError
from hwcost.search.base import Search
from hwcost.search.quantize import mixed_weight
from hwcost.search.quantized import QuantizedMethod
from hwcost.search.quantized_layers import Weight, chosen_of
from hwcost.search.quantized_now import kept_choice
from hwcost.search.quantized_table import Slice
from hwcost.search.summary import readable


@dataclass(frozen=True)
class Refinement:
    """What ``refine`` did.

    Attributes:
        raised: layer -> how many channels have more bits than before.
        cost: name of the cost.
        unit: its unit.
        before: of the exported network as it was.
        after: of the exported network as it is.
    """

    raised: dict[str, int]
    cost: str
    unit: str
    before: float
    after: float

    def __str__(self) -> str:
        lines = [f"{layer}: {n} channels have more bits" for layer, n in self.raised.items() if n]
        before, after = readable(self.before, self.unit), readable(self.after, self.unit)
        prices = f"{self.cost}: {before} -> {after}"
        return "\n".join([*(lines or ["no channel can have more bits for free"]), prices])


@torch.no_grad()
def refine(search: Search, name: str | None = None) -> Refinement:
    """Give channels more bits wherever the cost of the exported network does not rise, in place.

    Channels of a layer move from a lower precision to a higher one, as many together as the cost
    allows, those first whose weights lose most; nothing moves down, and no channel is removed.

    Args:
        search: with a choice of bits for each channel, such as ``MPS`` per channel.
        name: which cost, if there are several.

    Raises:
        SearchError: no layer has such a choice.
    """
    methods = [m for m in search.each_method() if isinstance(m, QuantizedMethod)]
    layers = [(m, n) for m in methods for n, w in enumerate(m.layers) if _has_choice(m, w)]
    if not layers:
        raise SearchError("refine(search) needs choices of bits for each channel, as of MPS")
    name = next(iter(search.cost_specification)) if name is None else name
    before = float(search.get_cost(name, hard=True))
    logits = [m.weights.logits.detach().clone() for m in methods if m.weights is not None]
    raised = {m.layers[n].path: _Layer(search, m, n, name).raise_all() for m, n in layers}
    after = float(search.get_cost(name, hard=True))
    if after > before:  # the smaller parts are priced by other formulas
        for method, old in zip((m for m in methods if m.weights is not None), logits, strict=True):
            assert method.weights is not None
            method.weights.logits.copy_(old)
        raised, after = dict.fromkeys(raised, 0), before
    return Refinement(raised, name, search.cost_unit(name), before, after)


def _has_choice(method: QuantizedMethod, weight: Weight) -> bool:
    return method.weights is not None and weight.by_channel and len(weight.options) > 1


class _Layer:
    """The channels of a layer, while they are raised."""

    def __init__(self, search: Search, method: QuantizedMethod, number: int, cost: str) -> None:
        assert method.weights is not None
        self.search, self.method, self.cost = search, method, cost
        self.weight = method.layers[number]
        self.bank = method.weights
        self.vector = search.decisions.hard()
        self.alive = torch.zeros(self.weight.channels, dtype=torch.bool)
        self.alive[method.kept(number)] = True
        self.choice = chosen_of(self.weight, kept_choice(self.bank, method.removes))
        self.slices = [s for s in method.slices if s.number == number]
        self.errors = _errors(method, number)

    def raise_all(self) -> int:
        """Raise what can be for free; return how many channels."""
        start = self.choice.clone()
        price = self._price(self.choice)
        for source, target in self._moves():
            channels = ((self.choice == source) & self.alive).nonzero().flatten()
            gain = (self.errors[:, source] - self.errors[:, target])[channels]
            channels = channels[gain.argsort(descending=True)]
            for count in range(len(channels), 0, -1):
                tried = self.choice.clone()
                tried[channels[:count]] = target
                found = self._price(tried)
                if found <= price:
                    self.choice, price = tried, found
                    break
        moved = (self.choice != start).nonzero().flatten()
        rows = self.weight.rows.start + moved
        columns = torch.tensor(self.weight.columns)[self.choice[moved]] + self.method.removes
        allowed = self.bank.logits.masked_fill(~self.bank.allowed, -torch.inf)
        device = self.bank.logits.device
        top = allowed[rows.to(device)].amax(1) + 1
        self.bank.logits[rows.to(device), columns.to(device)] = top
        return len(moved)

    def _moves(self) -> Iterator[tuple[int, int]]:
        """Yield pairs of options, from fewer bits to more, the most bits first."""
        order = sorted(range(len(self.weight.options)), key=lambda i: self.weight.options[i].bits)
        for target in reversed(order):
            for source in order:
                if self.weight.options[source].bits < self.weight.options[target].bits:
                    yield source, target

    def _price(self, choice: Tensor) -> float:
        vector = self.vector.clone()
        for part in self.slices:
            for number, share in enumerate(self._shares(part, choice)):
                vector[self.method.place(part, self.weight.columns[number])] = share
        return self.search.price(self.cost, vector)

    def _shares(self, part: Slice, choice: Tensor) -> list[float]:
        own, alive = choice[part.start : part.stop], self.alive[part.start : part.stop]
        options = range(len(self.weight.options))
        return [float(((own == o) & alive).sum()) / len(own) for o in options]


def _errors(method: QuantizedMethod, number: int) -> Tensor:
    """Return the squared error of each channel at each option, shape ``(channels, options)``."""
    weight = method.layers[number]
    stored = method.stored(number).detach()
    scales = method.decided_now().scales[number]
    found = []
    for option, grid in enumerate(weight.grids):
        rounded = mixed_weight(
            stored, scales[:, option : option + 1], None, [grid], weight.layer.axis
        )
        others = [d for d in range(stored.dim()) if d != weight.layer.axis]
        found.append((rounded - stored).square().sum(others))
    return torch.stack(found, 1).cpu()
