"""Weights as their readers see them: what they read from dead channels, and dead taps, are 0."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: Returns the decisions as readers see them, 0 or 1 or a product of such, shape ``(entries,)``.
Source = Callable[[], Tensor]


@dataclass(eq=False)
class Masks:
    """The masks of all weights and norms, made from the decisions in a few operations.

    A mask is a product of *factors*. Each is given by its entries in the vector of decisions,
    of a shape that broadcasts to the weight's; -1 is always 1. While the network runs, all masks
    are made once for all readers: see ``shared``.

    Attributes:
        source: the vector of decisions.
        factors: for each mask, its factors.
    """

    source: Source
    factors: list[list[Tensor]] = field(default_factory=list)
    _plan: "_Plan | None" = field(default=None, repr=False)
    _now: Sequence[Tensor] | None = field(default=None, repr=False)
    _last: Sequence[Tensor] | None = field(default=None, repr=False)

    def add(self, *factors: Tensor) -> "Mask":
        """Return a new mask."""
        self.factors.append(list(factors))
        self._plan = None
        return Mask(self, len(self.factors) - 1)

    def multiply(self, mask: "Mask", factor: Tensor) -> None:
        """Give a mask one more factor."""
        self.factors[mask.number].append(factor)
        self._plan = None

    def of(self, number: int) -> Tensor:
        """Return a mask, float32, of its factors' common shape."""
        masks = self._now
        if masks is None and _in_backward():
            # A checkpointed block runs again: it must see the very same tensors.
            masks = self._last
        return (self._all() if masks is None else masks)[number]

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Make all masks once for the body."""
        outermost = self._now is None and bool(self.factors)
        if outermost:
            self._now = self._all()
        try:
            yield
        finally:
            if outermost:
                self._now, self._last = None, self._now

    def _all(self) -> Sequence[Tensor]:
        vector = self.source()
        if self._plan is None or self._plan.device != vector.device:
            self._plan = _planned(self.factors, len(vector), vector.device)
        return self._plan(vector)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_plan": None, "_now": None, "_last": None}


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


@dataclass(frozen=True, eq=False)
class _Plan:
    """Masks laid one after another.

    Attributes:
        entries: for each factor, the entry in the decisions of each number of each mask; the
            entry after the last is 1.
    """

    device: torch.device
    entries: tuple[Tensor, ...]
    sizes: tuple[int, ...]
    shapes: tuple[torch.Size, ...]

    def __call__(self, vector: Tensor) -> Sequence[Tensor]:
        masks: tuple[Tensor, ...] = _Laid.apply(vector, self)  # type: ignore[no-untyped-call]
        return masks

    def factors(self, vector: Tensor) -> list[Tensor]:
        """Return each factor of all masks, flat."""
        padded = torch.cat([vector, vector.new_ones(1)])
        return [padded.index_select(0, entries) for entries in self.entries]


class _Laid(torch.autograd.Function):
    """The masks of a plan; one node in place of three for each mask."""

    @staticmethod
    def forward(ctx: Any, vector: Tensor, plan: _Plan) -> tuple[Tensor, ...]:
        ctx.save_for_backward(vector)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        parts = _product(plan.factors(vector)).split(plan.sizes)
        return tuple(part.view(shape) for part, shape in zip(parts, plan.shapes, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, None]:
        (vector,) = ctx.saved_tensors
        plan = ctx.plan
        pairs = zip(grads, plan.sizes, strict=True)
        flat = [vector.new_zeros(n) if grad is None else grad.flatten() for grad, n in pairs]
        grad = torch.cat(flat)
        factors = plan.factors(vector) if len(plan.entries) > 1 else [grad]
        out = vector.new_zeros(len(vector) + 1)
        for level, entries in enumerate(plan.entries):
            others = factors[:level] + factors[level + 1 :]
            out = out.index_add(0, entries, _product([grad, *others]))
        return out[:-1], None


def _product(factors: Sequence[Tensor]) -> Tensor:
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product


def _planned(masks: list[list[Tensor]], length: int, device: torch.device) -> _Plan:
    shapes = [torch.broadcast_shapes(*(f.shape for f in factors)) for factors in masks]
    depth = max(map(len, masks))
    none = torch.tensor(-1)
    entries = tuple(
        torch.cat(
            [
                (factors[level] if level < len(factors) else none).expand(shape).flatten()
                for factors, shape in zip(masks, shapes, strict=True)
            ]
        )
        .remainder(length + 1)
        .to(device)
        for level in range(depth)
    )
    sizes = tuple(shape.numel() for shape in shapes)
    return _Plan(device, entries, sizes, tuple(shapes))


@dataclass(frozen=True, eq=False)
class Mask:
    """One of the masks."""

    masks: Masks
    number: int

    def __call__(self, like: Tensor) -> Tensor:
        """Return it in the type and on the device of ``like``."""
        mask = self.masks.of(self.number)
        if mask.dtype == like.dtype and mask.device == like.device:
            return mask  # much sooner than ``to`` finds that out
        return mask.to(like)


@dataclass(frozen=True, eq=False)
class WeightMask:
    """Transform of a weight: its product with a mask."""

    mask: Mask

    def __call__(self, module: Any, parameter: Tensor) -> Tensor:
        return parameter * self.mask(parameter)
