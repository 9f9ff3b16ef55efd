"""N:M sparsity: which n of every m consecutive weights stay, and how the others train."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: Groups of at most so many are ranked by comparing pairs, which is sooner than to sort.
_PAIRS = 16


def kept(size: int, n: int, m: int) -> int:
    """Return how many of ``size`` consecutive weights stay: of the rest of a group, n/m of it."""
    return size // m * n + -(-(size % m) * n // m)


def pattern(
    weight: Tensor, dim: int, n: int, m: int, blocks: int = 1, alive: Tensor | None = None
) -> Tensor:
    """Return which weights stay: the n largest of every m along a dimension.

    Of equal ones the first stay.

    Args:
        weight: any shape.
        dim: which dimension.
        n, m: so many of so many.
        blocks: equal parts of the dimension, each with groups of its own.
        alive: which entries along ``dim`` are there, bool; groups are counted over these, and of
            the others none stays. In a block without any, all count.

    Returns:
        Bool, of the weight's shape.
    """
    scores = weight.detach().abs()
    if blocks == 1:
        return _among(scores, dim, n, m, alive)
    parts = scores.unflatten(dim, (blocks, -1))
    rows = None if alive is None else alive.view(blocks, -1)
    if rows is None or bool((rows == rows[:1]).all()):
        found = _among(parts, dim + 1, n, m, None if rows is None else rows[0])
        return found.flatten(dim, dim + 1)
    pairs = zip(parts.unbind(dim), rows, strict=True)
    return torch.cat([_among(part, dim, n, m, row) for part, row in pairs], dim)


def _among(scores: Tensor, dim: int, n: int, m: int, alive: Tensor | None) -> Tensor:
    if alive is None or bool(alive.all()) or not bool(alive.any()):
        return _groups(scores, dim, n, m)
    index = alive.nonzero().flatten().to(scores.device)
    found = _groups(scores.index_select(dim, index), dim, n, m)
    none = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    return none.index_copy_(dim, index, found)


def _groups(scores: Tensor, dim: int, n: int, m: int) -> Tensor:
    size = scores.shape[dim]
    whole = size // m * m
    parts = []
    if whole:
        groups = scores.narrow(dim, 0, whole).unflatten(dim, (-1, m))
        parts.append(_largest(groups, dim + 1, n).flatten(dim, dim + 1))
    if size > whole:
        rest = scores.narrow(dim, whole, size - whole)
        parts.append(_largest(rest, dim, kept(size - whole, n, m)))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _largest(scores: Tensor, dim: int, n: int) -> Tensor:
    """Return where the n largest along a dimension are; of equal ones the first."""
    size = scores.shape[dim]
    if n >= size:
        return torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
    if size <= _PAIRS:
        return torch.stack([rank < n for rank in _ranks(scores.unbind(dim))], dim)
    first = scores.argsort(stable=True, dim=dim, descending=True).narrow(dim, 0, n)
    none = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    return none.scatter_(dim, first, True)


def _ranks(columns: Sequence[Tensor]) -> list[Tensor]:
    """Return how many others come before each number, by size."""
    ranks = [torch.zeros(c.shape, dtype=torch.uint8, device=c.device) for c in columns]
    for later in range(1, len(columns)):
        for earlier in range(later):
            ahead = columns[earlier] >= columns[later]
            ranks[later] += ahead
            ranks[earlier] += ~ahead
    return ranks


class Pruned(torch.autograd.Function):
    """A weight without what does not stay; its gradient reaches all of it (SR-STE).

    To the gradient of weights that do not stay ``decay`` times them is added.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.decay = decay
        if decay:
            ctx.save_for_backward(weight, mask)
        return weight.masked_fill(~mask, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        if not ctx.decay:
            return grad, None, None
        weight, mask = ctx.saved_tensors
        return grad.add(weight.masked_fill(mask, 0), alpha=ctx.decay), None, None
