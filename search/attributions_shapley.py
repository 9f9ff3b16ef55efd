"""Shapley values of units by Monte Carlo over permutations."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hwcost.errors import TraceError
from hwcost.recorder import record
from hwcost.search.attributions_data import Batch, Losses
from hwcost.search.attributions_masked import Partial, Rerun, Site, Start, masks
from hwcost.search.attributions_tape import Unlike
from hwcost.search.attributions_taped import Taped, make_plan

#: How many masks run at once, tried in turn.
_WIDTHS = (64, 1)


@dataclass(frozen=True)
class Order:
    """Units in the order in which they are zeroed, permutation after permutation.

    Attributes:
        units: the units.
        starts: whether a permutation begins.
    """

    units: list[int]
    starts: list[bool]


def order_of(permutations: Tensor, active: Tensor) -> Order:
    """Return the steps of permutations that change anything."""
    chosen = active.tolist()
    order = Order([], [])
    for permutation in permutations.tolist():
        units = [unit for unit in permutation if chosen[unit]]
        order.units.extend(units)
        order.starts.extend(i == 0 for i in range(len(units)))
    return order


class Shapley:
    """Gives the Shapley values of a module's units, batch by batch.

    A unit's value in a permutation is by how much the loss grows when it is zeroed after those
    before it; the mean over permutations, the same for all samples, is returned.
    """

    def __init__(self, site: Site, losses: Losses, count: int, generator: Any) -> None:
        self._site = site
        self._losses = losses
        self._count = count
        self._generator = generator
        self._permutations: Tensor | None = None
        self._way: Rerun | Taped | None = None

    def values(self, batch: Batch) -> Tensor:
        """Return the values for each sample, float64, shape ``(samples, units)``."""
        start, order, after = self._lost(batch)
        before = start.losses.double()
        values = before.new_zeros(len(start.active), batch.size)
        if order.units:
            after = after.double()
            earlier = torch.cat([before[None], after[:-1]])
            earlier[torch.tensor(order.starts)] = before
            units = torch.tensor(order.units, device=after.device)
            values.index_add_(0, units, (after - earlier) / self._count)
        return values.t()

    def _drawn(self, units: int) -> Tensor:
        if self._permutations is None:
            device = self._generator.device if self._generator is not None else "cpu"
            drawn = [
                torch.randperm(units, generator=self._generator, device=device)
                for _ in range(self._count)
            ]
            self._permutations = torch.stack(drawn).cpu()
        return self._permutations

    def _lost(self, batch: Batch) -> "Lost":
        """Return the losses of a batch at every step."""
        if self._way is not None:
            try:
                return self._tried(self._way, batch)
            except (Unlike, RuntimeError):  # other operators for this number of samples
                self._way = None
        if hasattr(self._site.model, "forward_partial"):
            self._way = Partial(self._site, self._losses)
            return self._tried(self._way, batch)
        plain = Rerun(self._site, self._losses)
        for way in self._faster(batch):
            try:
                found = self._tried(way, batch)
            except (Unlike, RuntimeError):
                continue
            if _agrees(found, plain, batch):
                self._way = way
                return found
        self._way = plain
        return self._tried(plain, batch)

    def _tried(self, way: Rerun | Taped, batch: Batch) -> "Lost":
        start = way.start(batch)
        order = order_of(self._drawn(len(start.active)), start.active)
        if not order.units:
            return start, order, start.losses[:0]
        return start, order, way.losses(batch, start, order)

    def _faster(self, batch: Batch) -> Iterator[Taped]:
        """Return ways that are faster than to run the model, if they agree with it."""
        if not _is_fixed(self._site, batch):
            return
        try:
            plan = make_plan(self._site, batch)
        except Unlike:
            return
        for width in _WIDTHS:
            yield Taped(self._site, self._losses, plan, self._count, width)


#: A batch with all units as they are, the order in which they are zeroed, and the losses after.
Lost = tuple[Start, Order, Tensor]


def _is_fixed(site: Site, batch: Batch) -> bool:
    """Whether what the model computes does not depend on the values of its inputs."""
    try:
        return record(site.model, batch.args, batch.kwargs).how in ("meta", "fake")
    except TraceError:
        return False


def _agrees(found: Lost, plain: Rerun, batch: Batch) -> bool:
    """Whether losses with some and with all units zeroed are those of the model itself."""
    start, order, losses = found
    if not order.units:
        return True
    table = masks(order, len(start.active), start.active.device)
    rows = [len(start.active) // 2, len(table) - 1]
    rows = [min(row, len(table) - 1) for row in rows]
    return _close(start, [losses[r] for r in rows], [plain.masked(batch, table[r]) for r in rows])


def _close(start: Start, found: Iterable[Tensor], due: Iterable[Tensor]) -> bool:
    tolerance = torch.finfo(start.losses.dtype).eps ** 0.5
    return all(
        torch.allclose(f, d, rtol=tolerance, atol=tolerance, equal_nan=True)
        for f, d in zip(found, due, strict=True)
    )
