"""Activation memory over the schedule: what is alive while each op runs, and the peak."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hwcost.errors import WorkloadError
from hwcost.structure import Buffers, Structure


class Peak(NamedTuple):
    """The largest number of bytes alive at once, a scalar, and the op that runs then."""

    bytes: Tensor
    op: int


def peak_live(
    structure: Structure,
    out_bytes: Tensor,
    in_bytes_per_element: Tensor | float,
    scratch: Tensor | None = None,
    weight: Tensor | None = None,
    in_place: Tensor | None = None,
    reserved: Sequence[Tensor] = (),
) -> Peak:
    """Return the peak of ``live``, and which op holds it: the first where several do.

    The gradient flows to the buffers that are alive at the peak.
    """
    alive = live(structure, out_bytes, in_bytes_per_element, scratch, weight, in_place, reserved)
    if not len(alive):
        return Peak(alive.sum(), 0)
    # argmax takes the first NaN for the largest, so what is not known stays so.
    op = int(alive.detach().argmax())
    return Peak(alive[op], op)


def live(
    structure: Structure,
    out_bytes: Tensor,
    in_bytes_per_element: Tensor | float,
    scratch: Tensor | None = None,
    weight: Tensor | None = None,
    in_place: Tensor | None = None,
    reserved: Sequence[Tensor] = (),
) -> Tensor:
    """Return the bytes of activations that are alive while each op runs, shape ``(ops,)``.

    An op's inputs and outputs are alive while it runs, and whatever a later op reads. Fused and
    in-place ops share their producer's buffer; a view keeps all of what it looks at.

    Args:
        structure: must have ``buffers``; those of a trace do.
        out_bytes: what each row writes, for one execution, shape ``(rows,)``.
        in_bytes_per_element: bytes of one input number of each row, ``a_bits/8``, shape
            ``(rows,)`` or one number; a network input is held as its first reader wants it.
        scratch: working memory of each row while it runs, shape ``(rows,)``. Rows of one op run
            on several engines at once, so theirs add up.
        weight: expected executions of each row, 1 if left out, shape ``(rows,)``.
        in_place: whether the output of each row overwrites an input, shape ``(rows,)``. See
            ``overwritten``.
        reserved: what each row uses of each buffer that is there all the time, shape ``(rows,)``
            each. A buffer is as large as the op that uses most of it.

    Raises:
        WorkloadError: the table has no schedule.
    """
    sizes = buffer_bytes(structure, out_bytes, in_bytes_per_element, weight)
    alive = _held(structure, sizes)
    if in_place is not None:
        alive = alive - overwritten(structure, sizes, in_place)
    for buffer in reserved:
        alive = alive + reserved_bytes(structure, buffer, weight).to(alive)
    if scratch is None:
        return alive
    return alive.index_add(0, structure.ops.to(sizes.device), _weighted(scratch, weight))


def _held(structure: Structure, sizes: Tensor) -> Tensor:
    """Return the bytes of the buffers that are alive while each op runs, shape ``(ops,)``."""
    buffers = _schedule(structure)
    edges = sizes.new_zeros(structure.n_ops + 2)
    edges = edges.index_add(0, buffers.first.to(sizes.device), sizes)
    # An output of the network lives until n_ops, one step after the last op.
    edges = edges.index_add(0, buffers.last.to(sizes.device) + 1, -sizes)
    return edges.cumsum(0)[: structure.n_ops]


def overwritten(structure: Structure, sizes: Tensor, in_place: Tensor) -> Tensor:
    """Return the bytes of its input that each op overwrites with its output, shape ``(ops,)``.

    An op of which every row is in place writes over the largest input that no later op reads,
    but not over an input of the network: both take the memory of the larger while it runs.

    Args:
        sizes: bytes of each buffer, shape ``(buffers,)``.
        in_place: shape ``(rows,)``.
    """
    buffers = _schedule(structure)
    kept = (buffers.producer, buffers.first, buffers.last, structure.ops, in_place.to(torch.int64))
    producer, first, last, ops, flags = (tensor.to(sizes.device) for tensor in kept)
    zeros = sizes.new_zeros(structure.n_ops + 1)
    written = zeros.index_add(0, first, torch.where(producer >= 0, sizes, 0.0))
    read = torch.where((producer >= 0) & (first < last), sizes, 0.0)
    spent = zeros.scatter_reduce(0, last, read, "amax")
    every = torch.ones_like(zeros, dtype=torch.int64).scatter_reduce(0, ops, flags, "amin")
    return (torch.minimum(written, spent) * every)[: structure.n_ops]


def reserved_bytes(structure: Structure, used: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the size of a buffer for all ops, a scalar; ``used`` has shape ``(rows,)``."""
    ops = structure.ops.to(used.device)
    each = used.new_zeros(structure.n_ops).index_add(0, ops, _weighted(used, weight))
    return each.amax() if len(each) else each.sum()


def buffer_bytes(
    structure: Structure,
    out_bytes: Tensor,
    in_bytes_per_element: Tensor | float,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the bytes of each buffer, shape ``(buffers,)``; for arguments see ``live``."""
    buffers = _schedule(structure)
    ops, count = structure.ops.to(out_bytes.device), structure.n_ops
    zeros = out_bytes.new_zeros(count)
    written = zeros.index_add(0, ops, _weighted(out_bytes, weight))
    executed = torch.ones_like(out_bytes) if weight is None else weight.to(out_bytes.dtype)
    if structure.slot_share is not None:
        # A case counts with its probability, in however many rows it is.
        executed = executed * structure.slot_share.to(out_bytes)
    per_element = torch.as_tensor(in_bytes_per_element).to(out_bytes).expand(len(ops))
    # Rows of the first reader may differ in bits; their mean is the expected precision.
    share = zeros.index_add(0, ops, executed).clamp(min=torch.finfo(out_bytes.dtype).tiny)
    wanted = zeros.index_add(0, ops, per_element * executed) / share
    producer, reader = (b.to(out_bytes.device) for b in (buffers.producer, buffers.reader))
    made = buffers.share.to(out_bytes) * written[producer.clamp(min=0)]
    given = buffers.elements.to(out_bytes) * wanted[reader.clamp(min=0)]
    return torch.where(producer >= 0, made, given)


def alive_at(
    structure: Structure,
    op: int,
    out_bytes: Tensor,
    in_bytes_per_element: Tensor | float,
    weight: Tensor | None = None,
    in_place: Tensor | None = None,
) -> list[tuple[str, float]]:
    """Return (layer, bytes) of each buffer alive while an op runs, largest first.

    A buffer has the name of the layer that fills it, ``input`` if that is none. What an op in
    place writes over its input counts there, not as its output.
    """
    buffers = _schedule(structure)
    sizes = buffer_bytes(structure, out_bytes, in_bytes_per_element, weight).detach()
    if in_place is not None:
        own = sizes * (buffers.producer == op).to(sizes.device)
        over = overwritten(structure, sizes, in_place)[op]
        sizes = sizes - own * (over / own.sum().clamp(min=torch.finfo(own.dtype).tiny))
    held = ((buffers.first <= op) & (op <= buffers.last)).nonzero().flatten().tolist()
    pairs = [(_filler(structure, int(buffers.producer[i])), float(sizes[i])) for i in held]
    return sorted(pairs, key=lambda pair: -pair[1])


def _filler(structure: Structure, op: int) -> str:
    if op < 0:
        return "input"
    return structure.layers[int((structure.ops == op).nonzero()[0])]


def _weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    return values if weight is None else values * weight.to(values)


def _schedule(structure: Structure) -> Buffers:
    if structure.buffers is None:
        raise WorkloadError("the table has no schedule: only a traced model has peak memory")
    return structure.buffers
