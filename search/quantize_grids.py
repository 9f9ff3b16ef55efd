"""What numbers of few bits can hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """The codes that a number of ``bits`` takes, ``low`` to ``high``, both included."""

    bits: int
    low: int
    high: int


#: Biases, which are added to sums of products.
BIAS = Grid(32, -(2**31), 2**31 - 1)


def weight_grid(bits: int) -> Grid:
    """Return the signed grid without its lowest code: a weight and its negative both exist.

    Raises:
        ValueError: fewer than 2 bits.
    """
    if bits < 2:
        raise ValueError(f"weights need 2 bits or more, not {bits}")
    high = int(2 ** (bits - 1) - 1)
    return Grid(bits, -high, high)


def activation_grid(bits: int, signed: bool) -> Grid:
    """Return the grid of tensors that are never negative or, if ``signed``, may be.

    Raises:
        ValueError: fewer bits than two codes above zero need: 1, or 2 if ``signed``.
    """
    if bits < 1 + signed:
        raise ValueError(f"activations need {1 + signed} bits or more, not {bits}")
    if signed:
        return Grid(bits, -int(2 ** (bits - 1)), int(2 ** (bits - 1) - 1))
    return Grid(bits, 0, int(2**bits - 1))


@dataclass(frozen=True)
class Rounding:
    """How values are rounded.

    Args:
        grids: one for each choice.
        learns_inside: the gradient of a scale counts the rounding error of what is not clipped.
        clips: whether there may be values outside the grids; if not, ``x`` has the whole gradient.
        axis: the dimension of the channels, or None: one scale for all.
        inplace: the result takes the place of ``x``.
        keeps: whether there will be a backward.
    """

    grids: tuple[Grid, ...]
    learns_inside: bool = False
    clips: bool = True
    axis: int | None = None
    inplace: bool = False
    keeps: bool = True
