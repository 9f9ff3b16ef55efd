"""Rules of the integer program for what moves, picks or adds up numbers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hwcost.errors import SearchError
from hwcost.recorder_values import Call, product
from hwcost.search.integer_builder import Builder, placed
from hwcost.search.integer_rules import Rule
from hwcost.search.integer_steps import (
    Batch,
    Gather,
    Load,
    Step,
    filled,
    invoke,
    tensor_of,
)
from hwcost.search.integer_values import (
    Constant,
    Curve,
    Raw,
    Value,
    Whole,
    compressed,
    scale_after,
)


def move(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """Whatever puts numbers to other places and computes none."""
    values = [b.value(ref) for ref in call.inputs]
    floats = all(v.constant is None or v.constant.value.is_floating_point() for v in values)
    if all(v.constant is not None for v in values) and not (floats and grows(b.arguments[index])):
        return tuple(_moved_constant(b, call, i) for i in range(len(call.outputs)))
    return tuple(_moved(b, index, call, values, i) for i in range(len(call.outputs)))


def same(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """What changes no number."""
    return (b.value(call.inputs[0]),)


def grows(args: Any) -> bool:
    """Whether some size follows the batch."""
    if isinstance(args, tuple):
        return any(grows(arg) for arg in args)
    return isinstance(args, Batch)


def _moved_constant(b: Builder, call: Call, pick: int) -> Value:
    """Move known numbers, their codes and their scales."""
    constants = [b.value(ref).constant for ref in call.inputs]
    values = [c.value for c in constants if c is not None]
    value = _on(call, values, pick)
    if any(c is None or c.codes is None or c.scale is None for c in constants):
        return Value(constant=Constant(value))
    codes = _on(call, [c.codes for c in constants if c and c.codes is not None], pick)
    scales = [c.scale.expand(c.value.shape) for c in constants if c and c.scale is not None]
    scale = scale_after(lambda t: _on(call, [t], pick), scales[0], tuple(values[0].shape))
    if len(scales) > 1:
        scale = _on(call, [s.contiguous() for s in scales], pick)
    return Value(constant=Constant(value, codes, scale))


def _on(call: Call, tensors: Sequence[Tensor], pick: int) -> Tensor:
    args = placed(_viewable(call).args, {ref: i for i, ref in enumerate(call.inputs)})
    return tensor_of(invoke(_viewable(call).op, filled(args, tensors, 1)), pick)


def _viewable(call: Call) -> Call:
    """Return a view as a reshape, which does not depend on how the numbers lie in memory."""
    if call.op.name not in ("aten.view", "aten._unsafe_view"):
        return call
    return call._replace(op=call.op._replace(name="aten.reshape"))


def _moved(b: Builder, index: int, call: Call, values: list[Value], pick: int) -> Value:
    call = _viewable(call)
    if len(values) == 1 and values[0].raw is not None:
        step = b.apply(index, call, [values[0].raw.slot], pick)
        return Value(raw=Raw(b.emit(step, b.front)))
    moving = [v for v in values if not _is_position(v)]
    if len(moving) == 1 and moving[0].whole is None and moving[0].curve is not None:
        return _moved_curve(b, index, call, values, pick)
    wholes = [b.whole(v) for v in moving]
    if len(wholes) > 1 or call.op.name == "aten.constant_pad_nd":
        wholes = [b.settled(w) for w in wholes]
    waiting = iter(wholes)
    slots = [_position(b, v) if _is_position(v) else next(waiting).slot for v in values]
    first = wholes[0]
    if call.arg("value"):
        raise SearchError("it pads with another number than 0")
    scale = _scale(b, call, values, wholes, pick)
    ends = min(w.low for w in wholes), max(w.high for w in wholes)
    if call.op.name == "aten.constant_pad_nd":
        ends = min(ends[0], 0), max(ends[1], 0)
    slot = b.emit(b.apply(index, call, slots, pick))
    return b.result(Whole(slot, scale, *ends, first.floor, first.ceiling))


def _is_position(value: Value) -> bool:
    constant = value.constant
    return (
        constant is not None and constant.codes is None and not constant.value.is_floating_point()
    )


def _position(b: Builder, value: Value) -> int:
    assert value.constant is not None
    return b.emit(Load((), (b.buffer("positions", value.constant.value),), b.layer))


def _scale(b: Builder, call: Call, values: list[Value], wholes: list[Whole], pick: int) -> Tensor:
    """Return the scales after a move: those of the numbers that came to each place."""
    shapes = [b.shape(ref) for ref in call.inputs]
    if len({w.scale.view(-1)[0].item() for w in wholes if w.one_scale}) == 1 and all(
        w.one_scale for w in wholes
    ):
        rank = len(b.shape(call.outputs[pick]))
        return wholes[0].scale.reshape([1] * rank)
    waiting = iter(wholes)
    full: list[Tensor] = []
    for value, shape in zip(values, shapes, strict=True):
        if _is_position(value):
            assert value.constant is not None
            full.append(value.constant.value)
        else:
            full.append(next(waiting).scale.expand(shape).contiguous())
    if call.op.name == "aten.constant_pad_nd":  # the zeros' scale may be any
        pads = call.arg("pad")
        return _padded_scale(full[0], pads)
    return compressed(_on(call, full, pick))


def _padded_scale(scale: Tensor, pads: Sequence[int]) -> Tensor:
    for number in range(len(pads) // 2):
        dim = scale.dim() - 1 - number
        size = scale.shape[dim] + pads[2 * number] + pads[2 * number + 1]
        places = torch.arange(size) - pads[2 * number]
        scale = scale.index_select(dim, places.clamp(0, scale.shape[dim] - 1))
    return compressed(scale)


def _moved_curve(b: Builder, index: int, call: Call, values: list[Value], pick: int) -> Value:
    curve = next(v.curve for v in values if v.curve is not None)
    if curve.values[0].numel() > 1 or call.op.name == "aten.constant_pad_nd":
        raise SearchError("it moves the result of a function that is not quantized")
    slots = [_position(b, v) if _is_position(v) else curve.slot for v in values]
    slot = b.emit(b.apply(index, call, slots, pick))
    rank = len(b.shape(call.outputs[pick]))
    moved = Curve(slot, curve.low, curve.values.view(-1, *([1] * rank)), curve.plain)
    return Value(curve=moved)


def gather(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """A move that torch has for floats only: by the positions that it moves."""
    ref = call.inputs[0]
    shape = (1, *b.shape(ref)[1:])
    places = torch.arange(product(shape), dtype=torch.float64).view(shape)
    positions = _on(call, [places], 0).long()
    value = b.value(ref)
    whole = b.whole(value)
    name = b.buffer("positions", positions)
    scale = scale_after(
        lambda t: t.flatten(1)[:, positions.flatten()].view(positions.shape), whole.scale, shape
    )
    slot = b.emit(Gather((whole.slot,), (name,), b.layer))
    moved = Whole(slot, scale, whole.low, whole.high, whole.floor, whole.ceiling)
    return (b.result(moved),)


def embedding(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """Rows of a table of codes."""
    table = b.codes(b.value(call.arg("weight")), "its weight")
    places = b.value(call.arg("indices"))
    if places.raw is None or table.scale.shape[0] > 1:
        raise SearchError("it reads what is not an input, or its rows have different scales")
    step: Step = b.apply(index, call, [table.slot, places.raw.slot])
    rank = len(b.shape(call.outputs[0]))
    scale = table.scale.reshape([1] * (rank - 1) + [-1])
    return (b.result(b.made(step, scale, table.low, table.high)),)


def _names(text: str) -> list[str]:
    return [f"aten.{name}" for name in text.split()]


_MOVES = _names(
    "view reshape _unsafe_view _reshape_alias permute transpose t expand slice select split "
    "split_with_sizes unbind cat stack squeeze unsqueeze contiguous "
    "flip roll pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle "
    "constant_pad_nd index_select index repeat narrow unfold movedim diagonal"
)
_GATHERS = _names(
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d _upsample_nearest_exact3d reflection_pad1d reflection_pad2d "
    "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d"
)

#: Operator -> rule.
MOVING: dict[str, Rule] = {
    **dict.fromkeys(_MOVES, move),
    **dict.fromkeys(_names("clone detach alias lift_fresh _to_copy dropout"), same),
    **dict.fromkeys(_GATHERS, gather),
    "aten.embedding": embedding,
}
