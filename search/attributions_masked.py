"""Losses with some of a module's units zeroed: ways to get them, from the plainest on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hwcost.search.attributions_data import Batch, Losses
from hwcost.search.attributions_state import first_tensor, replaced, seeing


@dataclass(frozen=True, eq=False)
class Site:
    """Where units are masked.

    Attributes:
        model: the model; module: the one whose units they are.
        dim: which dimension of its output they lie along.
    """

    model: nn.Module
    module: nn.Module
    dim: int

    def zeroed(self, output: Tensor, units: Tensor) -> Tensor:
        """Return an output with some units, booleans of shape ``(units,)``, at 0."""
        shape = [1] * output.dim()
        shape[self.dim] = -1
        return output.masked_fill(units.view(shape), 0)

    def active(self, output: Tensor) -> Tensor:
        """Return which units are not 0 everywhere, booleans of shape ``(units,)``."""
        return (output != 0).transpose(0, self.dim).flatten(1).any(1)


class Ordered(Protocol):
    """Units in the order in which they are zeroed, permutation after permutation."""

    @property
    def units(self) -> Sequence[int]:
        """The units."""

    @property
    def starts(self) -> Sequence[bool]:
        """Whether a permutation begins, with all units as they are."""


def masks(order: Ordered, count: int, device: torch.device) -> Tensor:
    """Return which units are zeroed at each step, booleans of shape ``(steps, count)``."""
    table = torch.zeros(len(order.units), count, dtype=torch.bool)
    for step, (unit, start) in enumerate(zip(order.units, order.starts, strict=True)):
        if not start:
            table[step] = table[step - 1]
        table[step, unit] = True
    return table.to(device)


@dataclass(frozen=True, eq=False)
class Start:
    """A batch with all units as they are.

    Attributes:
        losses: of each sample.
        active: units that are not 0 already; zeroing others changes nothing.
        state: what the way to get losses keeps.
    """

    losses: Tensor
    active: Tensor
    state: Any = None


class Rerun:
    """Runs the whole model every time."""

    def __init__(self, site: Site, losses: Losses) -> None:
        self.site = site
        self._losses = losses

    def start(self, batch: Batch) -> Start:
        """Return the losses of a batch with all units as they are."""
        seen: list[Tensor] = []

        def see(call: int, output: Tensor) -> Tensor:
            seen.append(self.site.active(output))
            return output

        losses = self._run(batch, see)
        return Start(losses, torch.stack(seen).any(0))

    def losses(self, batch: Batch, start: Start, order: Ordered) -> Tensor:
        """Return the losses at every step, shape ``(steps, samples)``."""
        table = masks(order, len(start.active), start.active.device)
        return torch.stack([self.masked(batch, units) for units in table])

    def masked(self, batch: Batch, units: Tensor) -> Tensor:
        """Return the losses with some units zeroed."""
        return self._run(batch, lambda call, output: self.site.zeroed(output, units))

    def _run(self, batch: Batch, see: Callable[[int, Tensor], Tensor]) -> Tensor:
        with seeing([(self.site.module, see)]):
            output = self.site.model(*batch.args, **batch.kwargs)
        return self._losses(output, batch.y, batch.size)


class Partial(Rerun):
    """Runs a model that can run to and from a module by itself, through ``forward_partial``."""

    def start(self, batch: Batch) -> Start:
        """See ``Rerun``."""
        output = self._partial(*batch.args, to=self.site.module, **batch.kwargs)
        tensor = first_tensor(output, self.site.module)
        losses = self._from(output, batch)
        return Start(losses, self.site.active(tensor), output)

    def losses(self, batch: Batch, start: Start, order: Ordered) -> Tensor:
        """See ``Rerun``."""
        tensor = first_tensor(start.state, self.site.module)
        table = masks(order, len(start.active), start.active.device)
        outputs = (replaced(start.state, self.site.zeroed(tensor, units)) for units in table)
        return torch.stack([self._from(output, batch) for output in outputs])

    def _from(self, output: Any, batch: Batch) -> Tensor:
        kept = output.clone() if isinstance(output, Tensor) else output
        result = self._partial(kept, start=self.site.module)
        return self._losses(result, batch.y, batch.size)

    def _partial(
        self, *args: Any, to: nn.Module | None = None, start: nn.Module | None = None, **kwargs: Any
    ) -> Any:
        run: Callable[..., Any] = self.site.model.forward_partial  # type: ignore[assignment]
        return run(*args, to_module=to, from_module=start, **kwargs)
