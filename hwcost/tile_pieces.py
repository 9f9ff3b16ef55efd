"""Into how many pieces a size can be cut: arithmetic of whole numbers, many sizes at once.

Sizes are counted in steps, of which a tile has a whole number; the last step may be cut off. Cut
into ``p`` pieces, a size of ``s`` steps has tiles of ``up(s, p)`` steps: the fewest with which no
more than ``p`` pieces are needed. So the last piece is about as large as the others.
"""

import math

import torch
from torch import Tensor


def up(a: Tensor, b: Tensor) -> Tensor:
    """Return the quotient, rounded up."""
    return -torch.div(-a, b, rounding_mode="floor")


def down(a: Tensor, b: Tensor | float) -> Tensor:
    """Return the quotient, rounded down."""
    return torch.div(a, b, rounding_mode="floor")


def pieces(sizes: Tensor) -> Tensor:
    """Return the numbers of pieces that sizes can be cut into, few first, filled up with inf.

    Args:
        sizes: in steps, float64, any shape.

    Returns:
        Float64, one dimension more, whose length is a power of two.
    """
    many = torch.arange(1, math.isqrt(int(sizes.max())) + 2, dtype=torch.float64)
    sizes = sizes[..., None]
    few = torch.where(up(sizes, up(sizes, many)) == many, many, math.inf)
    # Each number of pieces is small, or the tile is.
    found = torch.cat([few, up(sizes, many)], -1).sort(-1).values
    again = found[..., 1:] == found[..., :-1]
    found[..., 1:] = torch.where(again, math.inf, found[..., 1:])
    found = found.sort(-1).values
    most = int((found < math.inf).sum(-1).max())
    width = 1 << (most - 1).bit_length()
    found = found[..., :width]
    return torch.nn.functional.pad(found, (0, width - found.shape[-1]), value=math.inf)
