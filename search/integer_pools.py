"""Rules of the integer program for what picks the largest number of several, or adds them up."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hwcost.errors import SearchError
from hwcost.recorder_values import Call, product
from hwcost.search.integer_builder import Builder
from hwcost.search.integer_rules import Rule
from hwcost.search.integer_steps import PoolSum, Step, Sum
from hwcost.search.integer_values import INT32, Value, Whole, compressed


def largest(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """Max pools: on codes as on what they stand for."""
    whole = b.whole(b.value(call.inputs[0]))
    if whole.scale.shape[2:].numel() > 1:
        whole = b.uniform(b.settled(whole), range(2, whole.scale.dim()))
    step: Step = b.apply(index, call, [whole.slot])
    made = Whole(b.emit(step), whole.scale, whole.low, whole.high, whole.floor, whole.ceiling)
    return b.result(made), Value(why="the positions of maxima")


def maximum(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """The largest code along dimensions."""
    rank = len(b.shape(call.inputs[0]))
    dims = call.arg("dim")
    dims = (dims,) if isinstance(dims, int) else tuple(dims) or range(rank)
    dims = tuple(d % rank for d in dims)
    whole = b.uniform(b.codes(b.value(call.inputs[0])), dims)
    sizes = [s for d, s in enumerate(whole.scale.shape) if call.arg("keepdim") or d not in dims]
    slot = b.emit(b.apply(index, call, [whole.slot]))
    made = Whole(slot, whole.scale.reshape(sizes), whole.low, whole.high)
    return b.result(made), Value(why="the positions of maxima")


def reduced(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """Sums and means along dimensions."""
    ref = call.inputs[0]
    shape = b.shape(ref)
    dims = call.arg("dim")
    dims = range(len(shape)) if dims is None or dims == () else dims
    dims = tuple(d % len(shape) for d in dims)
    keep = bool(call.arg("keepdim"))
    whole = b.uniform(b.codes(b.value(ref)), dims)
    count = product(shape[d] for d in dims)
    scale = whole.scale / count if call.op.name == "aten.mean" else whole.scale
    scale = (
        scale if keep else scale.reshape([s for d, s in enumerate(scale.shape) if d not in dims])
    )
    step = Sum((whole.slot,), (), b.layer, dims, keep)
    return (b.result(b.made(step, scale, whole.low * count, whole.high * count)),)


def average(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """Average pools: sums of windows, each with its own count."""
    ref = call.inputs[0]
    sizes, outs = b.shape(ref), b.shape(call.outputs[0])
    rank = 3 if "3d" in call.op.name else 2
    whole = b.codes(b.value(ref))
    whole = b.uniform(whole, range(whole.scale.dim() - rank, whole.scale.dim()))
    windows, count = [], torch.ones((), dtype=torch.float64)
    for dim in range(rank):
        place = len(sizes) - rank + dim
        inside, number = _windows(call, dim, sizes[place], outs[place])
        windows.append(inside)
        count = count[..., None] * number
    if call.arg("divisor_override"):
        count = torch.full_like(count, call.arg("divisor_override"))
    names = tuple(b.buffer("windows", w.to(torch.int8)) for w in windows)
    most = product(int(w.sum(1).max()) for w in windows)
    ends = min(whole.low * most, 0), max(whole.high * most, 0)
    if max(-ends[0], ends[1]) >= INT32:
        raise SearchError("its sums have more than 32 bits")
    step = PoolSum((whole.slot,), names, b.layer)
    return (b.result(b.made(step, compressed(whole.scale / count), *ends)),)


def _windows(call: Call, dim: int, size: int, outs: int) -> tuple[Tensor, Tensor]:
    """Return which numbers fall in which window, ``(windows, numbers)``, and their counts."""
    inside = torch.zeros(outs, size, dtype=torch.int64)
    count = torch.zeros(outs, dtype=torch.float64)
    for o in range(outs):
        if call.arg("kernel_size") is None:
            start, end = o * size // outs, -((-(o + 1) * size) // outs)
            number = end - start
        else:
            kernel, stride, pad = (
                _at(call.arg(n), dim) for n in ("kernel_size", "stride", "padding")
            )
            start = o * (stride or kernel) - pad
            end = min(start + kernel, size + pad)
            number = end - start
            start, end = max(start, 0), min(end, size)
            number = number if call.arg("count_include_pad") else end - start
        inside[o, start:end] = 1
        count[o] = number
    return inside, count


def _at(sizes: int | Sequence[int], dim: int) -> int:
    """Return the size of one dimension, 0 where it is left to the default."""
    if isinstance(sizes, int):
        return sizes
    return sizes[dim if len(sizes) > 1 else 0] if len(sizes) else 0


#: Operator -> rule.
POOLING: dict[str, Rule] = {
    "aten.max_pool2d_with_indices": largest,
    "aten.max_pool3d_with_indices": largest,
    "aten.adaptive_max_pool2d": largest,
    "aten.adaptive_max_pool3d": largest,
    "aten.amax": maximum,
    "aten.mean": reduced,
    "aten.sum": reduced,
    "aten.avg_pool2d": average,
    "aten.avg_pool3d": average,
    "aten._adaptive_avg_pool2d": average,
    "aten._adaptive_avg_pool3d": average,
}
