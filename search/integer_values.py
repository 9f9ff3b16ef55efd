"""What a tensor is on the way from a fake-quantized model to one of whole numbers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: Accumulators and biases have 32 bits.
INT32 = 2**31

#: The most codes that a look-up table has: those of 8 bits.
TABLE_CODES = 256


@dataclass(frozen=True)
class Whole:
    """A tensor of whole numbers of the program; it stands for ``codes * scale``.

    Attributes:
        slot: where the program keeps it.
        scale: what one step is worth, float64; as many dimensions as the tensor, each 1 or the
            tensor's size.
        low: no code is below; high: none above.
        floor: what the tensor stands for is at least this: a clamp that waits for the next
            quantizer, where it costs nothing; ceiling: at most.
    """

    slot: int
    scale: Tensor
    low: int
    high: int
    floor: float = float("-inf")
    ceiling: float = float("inf")

    @property
    def one_scale(self) -> bool:
        """Whether all its numbers have the same scale."""
        return self.scale.numel() == 1

    @property
    def largest(self) -> int:
        """No code is larger than this without its sign."""
        return max(-self.low, self.high, 1)


@dataclass(frozen=True)
class Curve:
    """A tensor whose every number follows from one code of few bits.

    Attributes:
        slot: the codes.
        low: the smallest code.
        values: for each code from ``low`` on what the number is, shape ``(codes, ...)``; the
            rest broadcasts to the tensor.
        plain: whether it is ``codes * scale``, without any function.
    """

    slot: int
    low: int
    values: Tensor
    plain: bool


@dataclass(frozen=True)
class Constant:
    """A tensor that is known when the program is made.

    Attributes:
        value: its numbers.
        codes: the same in whole numbers, int64, None where no quantizer made it.
        scale: what one step is worth, as in ``Whole``.
    """

    value: Tensor
    codes: Tensor | None = None
    scale: Tensor | None = None


@dataclass(frozen=True)
class Raw:
    """A tensor of the model's input, as it was given: not yet quantized."""

    slot: int


@dataclass(frozen=True)
class Value:
    """A tensor in one or more of the forms that it has.

    Attributes:
        whole: as whole numbers.
        curve: as a function of one tensor of few bits.
        constant: as known numbers.
        raw: as the input.
        why: what it lacks, for the error of whoever needs a form that it does not have.
    """

    whole: Whole | None = None
    curve: Curve | None = None
    constant: Constant | None = None
    raw: Raw | None = None
    why: str = ""


def curve_of(whole: Whole, dtype: torch.dtype) -> Curve | None:
    """Return few codes of one scale as a function of themselves, None for others."""
    count = whole.high - whole.low + 1
    if count > TABLE_CODES or not whole.one_scale or whole.floor > -torch.inf:
        return None
    if whole.ceiling < torch.inf:
        return None
    codes = torch.arange(whole.low, whole.high + 1, dtype=dtype)
    values = codes * whole.scale.view(()).to(dtype)
    return Curve(whole.slot, whole.low, values.view(-1, *whole.scale.shape), plain=True)


def scale_after(move: Callable[[Tensor], Tensor], scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the scales of what a move of numbers makes of a tensor of this shape."""
    if scale.numel() == 1:
        size = torch.empty(shape, device="meta", dtype=torch.float64)
        return scale.reshape([1] * move(size).dim())
    return compressed(move(scale.expand(shape).contiguous()))


def compressed(scale: Tensor) -> Tensor:
    """Return the same scales with size 1 in every dimension along which they are equal."""
    for dim in range(scale.dim()):
        first = scale.narrow(dim, 0, 1)
        if bool((scale == first).all()):
            scale = first
    return scale.clone()


def multiplier(ratio: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Return ``(multiplier, shift)``, int64, with ``multiplier / 2**shift`` next to ``ratio``.

    The multiplier has 31 bits, or so many that its product with ``largest`` has less than 63.
    """
    bits = min(31, 62 - largest.bit_length())
    mantissa, exponent = torch.frexp(ratio.double().clamp(max=2.0 ** (bits - 1)))
    number = torch.round(mantissa * 2**bits).long()
    shift = bits - exponent.long()
    # frexp's mantissa rounds up to 1 at times: one bit more than there is room for.
    full = number == 2**bits
    number, shift = torch.where(full, number >> 1, number), torch.where(full, shift - 1, shift)
    # What is shifted further than 62 bits is 0 whatever its last bits.
    number = number >> (shift - 62).clamp(0, 62)
    return number, shift.clamp(0, 62)
