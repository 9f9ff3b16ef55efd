"""The tricks on gradients that searches play; nowhere else may one be."""

from torch import Tensor


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Return ``hard``, exactly, with the gradient of ``soft``; in the type of ``soft``.

    Args:
        hard: any type, without a gradient; same shape as ``soft``.
        soft: finite.
    """
    # The difference is 0, not almost 0, so that adding it changes nothing.
    return hard.to(soft.dtype) + (soft - soft.detach())


def unit_weight(probability: Tensor) -> Tensor:
    """Return 1 with the gradient of the logarithm of ``probability``.

    The weight of a branch that was drawn with this probability: over many draws, its gradient is
    that of a mix of all branches. The gradient is bounded however small the probability.
    """
    return probability / probability.detach()
