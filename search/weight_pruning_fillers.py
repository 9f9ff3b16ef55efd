"""Which weights of a tensor are pruned next; masks are bool, False where a weight is 0."""

import math
from fractions import Fraction

import torch
from torch import Tensor


def due(share: float, size: int) -> int:
    """Return how many of ``size`` weights make up a share: the fewest whose part is as large.

    This is ``ceil(share * size)`` without its rounding error, by which 0.07 of 100 were 8.
    """
    count = math.ceil(share * size)
    while count > 0 and (count - 1) / size >= share:
        count -= 1
    while count < size and count / size < share:
        count += 1
    return count


def fill_random(mask: Tensor, count: int, seed: int) -> Tensor:
    """Return a mask with more zeros, anywhere, until it has ``count``.

    A seed orders all places once, and the first that are left go: masks of one seed are nested.

    Args:
        mask: of any shape.
        count: at most its size; where it has as many zeros already, nothing is added.
    """
    flat = mask.flatten()
    missing = count - _zeros(flat)
    if missing <= 0:
        return mask
    order = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed))
    order = order.to(mask.device)
    left = order[flat[order]]
    return flat.index_fill(0, left[:missing], False).view(mask.shape)


def fill_smallest(weight: Tensor, mask: Tensor, count: int) -> Tensor:
    """Return a mask with more zeros, at the smallest of what is left, until it has ``count``.

    Of equal weights, those that come first go.
    """
    if count <= _zeros(mask):
        return mask
    size = weight.detach().abs().flatten().masked_fill_(~mask.flatten(), -1)
    largest = _smallest(size, count)
    below = size < largest
    ties = (size == largest).nonzero().flatten()[: count - int(below.sum())]
    return ~below.index_fill_(0, ties, True).view(mask.shape)


def fill_multiples(weight: Tensor, mask: Tensor, count: int, delta: float) -> Tensor:
    """Return a mask that has zeros wherever ``|w| <= k * delta``, and where it had them.

    ``k`` is the smallest whole number that gives ``count`` zeros, 0 included; what is pruned
    already has the weight 0.
    """
    size = weight.detach().abs() * mask
    if count == 0:
        return mask & (size != 0)
    reached = _smallest(size.flatten(), count)
    return mask & (size > multiple(smallest_multiple(reached, delta), delta, size))


def smallest_multiple(value: Tensor, delta: float) -> int:
    """Return the smallest whole ``k`` for which ``value <= k * delta`` in the value's own type.

    The product, rounded to that type, does not fall as ``k`` grows, so the place where it
    reaches the value is bisected: a step for each bit of ``k``.

    Args:
        value: a scalar, finite, not negative.
        delta: above 0.
    """
    value = value.cpu()
    low, high = -1, math.ceil(Fraction(value.item()) / Fraction(delta))
    while high - low > 1:
        middle = (low + high) // 2
        enough = bool(value <= multiple(middle, delta, value))
        low, high = (low, middle) if enough else (middle, high)
    return high


def multiple(k: int, delta: float, like: Tensor) -> Tensor:
    """Return ``k * delta`` as a scalar in the type and on the device of ``like``."""
    exact = torch.tensor(float(k * Fraction(delta)), dtype=torch.float64)
    return exact.to(like.dtype).to(like.device)


def _smallest(values: Tensor, count: int) -> Tensor:
    """Return the last of the ``count`` smallest values, a scalar."""
    if values.is_cpu:
        return values.kthvalue(count).values
    # On a GPU, kthvalue is refused while torch.use_deterministic_algorithms is on.
    return values.sort().values[count - 1]


def _zeros(mask: Tensor) -> int:
    return mask.numel() - int(mask.sum())
