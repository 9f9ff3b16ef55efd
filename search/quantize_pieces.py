"""Tensors as rows, cut into pieces that stay in the cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

#: Elements of a piece: few enough for a core's caches, enough to hide the time of a call.
PIECE = 2**18


def dense(x: Tensor) -> Tensor:
    """Return ``x``, or a copy if its elements do not fill their memory."""
    if x.is_contiguous() or torch.empty_like(x, device="meta").stride() == x.stride():
        return x
    return torch.empty_like(x).copy_(x) if not x.requires_grad else x.contiguous()


def laid_like(x: Tensor, other: Tensor) -> Tensor:
    """Return ``x``, or a copy if its strides are not those of ``other``, which is dense."""
    if x.stride() == other.stride():
        return x
    return torch.empty_like(other, dtype=x.dtype).copy_(x)


def flat(x: Tensor) -> Tensor:
    """Return the elements of a dense tensor in the order of its memory, shape ``(size,)``."""
    return x.as_strided((x.numel(),), (1,))


def rows(x: Tensor, axis: int | None) -> Tensor:
    """Return a row for each channel, shape ``(channels, size)``; of a dense ``x`` one without."""
    if axis is None:
        return flat(x)[None]
    return x.movedim(axis, 0).flatten(1) if x.dim() > 1 else x[:, None]


def unrowed(made: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Return what ``rows`` would make ``made`` of, laid out like ``x``."""
    if axis is None:
        return made.as_strided(x.shape, x.stride())
    return laid_like(made.view(x.movedim(axis, 0).shape).movedim(0, axis), x)


def cut(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield pieces of tensors of one shape, ``(size,)`` or ``(rows, size)``: the whole off the CPU.

    A single row is cut into many, many rows between one and the next.
    """
    first = tensors[0]
    total, size = first.numel(), first.shape[-1]
    if not total:
        return
    if first.device.type != "cpu" or total <= PIECE:
        yield tensors
    elif total == size:
        yield from zip(*(t.split(PIECE, -1) for t in tensors), strict=True)
    else:
        yield from zip(*(t.split(max(1, PIECE // size)) for t in tensors), strict=True)


class Scratch:
    """Room for ``count`` pieces of type ``dtype``, allocated once."""

    def __init__(self, count: int, dtype: torch.dtype, device: torch.device) -> None:
        self._make = count, dtype, device
        self._room: Tensor | None = None
        self._views: tuple[Tensor, ...] = ()

    def like(self, piece: Tensor) -> tuple[Tensor, ...]:
        """Return tensors in the shape of ``piece``, their values of any kind."""
        count, dtype, device = self._make
        if self._room is None or self._room.shape[1] < piece.numel():
            self._room = torch.empty(count, piece.numel(), dtype=dtype, device=device)
        if not self._views or self._views[0].shape != piece.shape:
            room = self._room[:, : piece.numel()]
            self._views = room.view(count, *piece.shape).unbind()
        return self._views


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which gradients of ``dtype`` are added up."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def dots(a: Tensor, b: Tensor, room: Tensor) -> Tensor:
    """Return the product of each row of ``a`` with that of ``b``, shape ``(rows,)``."""
    if len(a) == 1:
        return torch.dot(a[0], b[0])[None]
    return torch.mul(a, b, out=room).sum(1)
