"""What the rules of an integer program share: slots, buffers, scales, clamps that wait."""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hwcost.errors import SearchError
from hwcost.recorder_values import Call, Recording, Ref
from hwcost.search.integer_steps import Add, Apply, Limit, Load, Multiply, Requantize, Slot, Step
from hwcost.search.integer_values import INT32, Value, Whole, curve_of, multiplier

#: To this many bits codes are refined where tensors of different scales meet.
FINE_BITS = 30

#: Constants that no quantizer rounds have so many bits.
CONSTANT_BITS = 24


class Builder:
    """A program in the making.

    Args:
        recording: of the model.
        arguments: those of every call, with ``Batch`` for sizes that follow the batch.
        values: of parameters, buffers and inputs.

    Attributes:
        fixed: whether the program holds for the example's number of samples only.
    """

    def __init__(
        self, recording: Recording, arguments: Sequence[tuple[Any, ...]], values: dict[Ref, Value]
    ) -> None:
        self.recording, self.arguments, self.values = recording, arguments, values
        self.front: dict[int, Step] = {}
        self.middle: dict[int, Step] = {}
        self.back: dict[int, Step] = {}
        self.buffers: dict[str, Tensor] = {}
        self.layer = ""
        self.fixed = False
        self.slots = len(recording.inputs)

    def value(self, ref: Ref) -> Value:
        """Return what is known of a tensor."""
        return self.values.get(ref) or Value(why="a tensor is neither a parameter nor a buffer")

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """Return the recorded shape of a tensor."""
        return self.recording.tensors[ref].shape

    def emit(self, step: Step, part: dict[int, Step] | None = None) -> int:
        """Add a step and return the slot of what it makes."""
        slot = self.slots
        self.slots += 1
        (self.middle if part is None else part)[slot] = step
        return slot

    def buffer(self, kind: str, tensor: Tensor) -> str:
        """Keep a tensor in the program and return its name."""
        name = re.sub(r"\W", "_", f"{self.layer}_{kind}_{len(self.buffers)}").strip("_")
        self.buffers[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        return name

    def made(
        self, step: Step, scale: Tensor, low: int, high: int, part: dict[int, Step] | None = None
    ) -> Whole:
        """Add a step; it makes codes of this scale from low to high."""
        if max(-low, high) >= 2**62:
            raise SearchError("its integers have more than 62 bits; quantize what it reads")
        return Whole(self.emit(step, part), scale, low, high)

    def result(self, whole: Whole) -> Value:
        """Return whole numbers in all the forms that they have."""
        return Value(whole=whole, curve=curve_of(whole, torch.float32))

    def apply(self, index: int, call: Call, slots: Sequence[int], pick: int = 0) -> Apply:
        """Return the step that calls the recorded operator on the slots of its tensors."""
        args = placed(self.arguments[index], {ref: i for i, ref in enumerate(call.inputs)})
        if call.op.name == "aten.constant_pad_nd":
            args = (*args[:2], 0)  # in place of 0.0
        return Apply(tuple(slots), (), self.layer, call.op, args, pick)

    def whole(self, value: Value, what: str = "what it reads") -> Whole:
        """Return a tensor as codes whose clamp may wait.

        Raises:
            SearchError: it has no such form.
        """
        if value.whole is not None:
            return value.whole
        constant = value.constant
        if constant is None or not constant.value.is_floating_point():
            raise SearchError(value.why or f"{what} is not quantized")
        codes, scale = constant.codes, constant.scale
        if codes is None or scale is None:
            codes, scale = _finely(constant.value)
        low, high = int(codes.min()), int(codes.max())
        dtype = torch.int32 if max(-low, high) < INT32 else torch.int64
        name = self.buffer("constant", codes.to(dtype))
        return self.made(Load((), (name,), self.layer), scale, low, high)

    def codes(self, value: Value, what: str = "what it reads") -> Whole:
        """Return a tensor as codes without a clamp that waits; raises as ``whole``."""
        return self.settled(self.whole(value, what))

    def settled(self, whole: Whole) -> Whole:
        """Clamp what waits to be: exactly if the limits are codes, else on a finer scale."""
        limits = [whole.floor / whole.scale, whole.ceiling / whole.scale]
        if all(bool(torch.isinf(limit).all()) for limit in limits):
            return whole
        finite = [limit[~torch.isinf(limit)] for limit in limits]
        if not all(bool((limit == limit.round()).all()) for limit in finite):
            bare = Whole(whole.slot, whole.scale, whole.low, whole.high)
            fine = self.rescaled(bare, self.finer(bare))
            limits = [whole.floor / fine.scale, whole.ceiling / fine.scale]
            whole = fine
        low, high = (limit.round().clamp(-(2.0**62), 2.0**62).long() for limit in limits)
        names = self.buffer("low", low), self.buffer("high", high)
        step = Limit((whole.slot,), names, self.layer)
        least, most = max(whole.low, int(low.min())), min(whole.high, int(high.max()))
        return self.made(step, whole.scale, min(least, most), max(least, most))

    def finer(self, *wholes: Whole) -> Tensor:
        """Return a scale on which all of these are exact, or nearly, in ``FINE_BITS`` bits."""
        scale = wholes[0].scale
        for whole in wholes[1:]:
            scale = torch.minimum(scale, whole.scale)
        largest = max(float((w.largest * w.scale / scale).max()) for w in wholes)
        return scale * 2.0 ** -(FINE_BITS - 1 - math.ceil(math.log2(largest + 1)))

    def rescaled(self, whole: Whole, scale: Tensor) -> Whole:
        """Return the same on another scale; what waits must have been done."""
        ratio = whole.scale / scale
        if bool((ratio == 1).all()):
            return whole
        most = float(ratio.max())
        low, high = math.floor(whole.low * most) - 1, math.ceil(whole.high * most) + 1
        low, high = min(low, 0), max(high, 0)
        step = self.requantize(whole, ratio, torch.tensor(low), torch.tensor(high))
        return self.made(step, scale.expand(ratio.shape), low, high)

    def requantize(self, whole: Whole, ratio: Tensor, low: Tensor, high: Tensor) -> Requantize:
        """Return the step that multiplies by a ratio, rounds and clamps."""
        small = max(-int(low.min()), int(high.max())) < INT32
        limits = (t.to(torch.int32 if small else torch.int64) for t in (low, high))
        tensors = (*multiplier(ratio, whole.largest), *limits)
        kinds = ("multiplier", "shift", "low", "high")
        names = tuple(self.buffer(k, t) for k, t in zip(kinds, tensors, strict=True))
        return Requantize((whole.slot,), names, self.layer)

    def uniform(self, whole: Whole, dims: Sequence[int]) -> Whole:
        """Return the same with one scale along these dimensions."""
        if all(whole.scale.shape[d] == 1 for d in dims):
            return whole
        scale = self.finer(whole).amin(list(dims), keepdim=True)
        return self.rescaled(whole, scale)

    def plus(self, whole: Whole, other: Whole | Tensor, rank: int) -> Whole:
        """Return the sum with a tensor or a constant, ``rank`` dimensions."""
        first = ranked(whole, rank)
        if isinstance(other, Tensor):
            return self._plus_constant(first, padded(other.double(), rank))
        second = ranked(other, rank)
        if not torch.equal(*torch.broadcast_tensors(first.scale, second.scale)):
            scale = self.finer(first, second)
            first, second = self.rescaled(first, scale), self.rescaled(second, scale)
        step = Add((first.slot, second.slot), (), self.layer)
        scale = torch.broadcast_tensors(first.scale, second.scale)[0]
        return self.made(step, scale, first.low + second.low, first.high + second.high)

    def _plus_constant(self, whole: Whole, constant: Tensor) -> Whole:
        scale = self.finer(whole)
        reach = float((constant.abs() / scale).max()) / 2.0 ** (FINE_BITS - 1)
        scale = scale * 2.0 ** max(0, math.ceil(math.log2(reach))) if reach > 0 else scale
        fine = self.rescaled(whole, scale)
        offset = (constant / fine.scale).round().long()
        step = Add((fine.slot,), (self.buffer("offset", offset),), self.layer)
        scale = torch.broadcast_tensors(fine.scale, offset)[0]
        return self.made(step, scale, fine.low + int(offset.min()), fine.high + int(offset.max()))

    def times(self, whole: Whole, other: Whole | Tensor, rank: int) -> Whole:
        """Return the product with a tensor or a constant, ``rank`` dimensions."""
        first = ranked(whole, rank)
        if isinstance(other, Tensor):
            return self._times_constant(first, padded(other.double(), rank))
        second = ranked(other, rank)
        ends = [a * b for a in (first.low, first.high) for b in (second.low, second.high)]
        step = Multiply((first.slot, second.slot), (), self.layer)
        return self.made(step, first.scale * second.scale, min(ends), max(ends))

    def _times_constant(self, whole: Whole, constant: Tensor) -> Whole:
        sign = constant.sign().long()
        scale = whole.scale * torch.where(sign == 0, torch.ones_like(constant), constant.abs())
        if bool((sign == 1).all()):
            return Whole(whole.slot, scale, whole.low, whole.high)
        ends = [end * int(s) for end in (whole.low, whole.high) for s in sign.unique()]
        step = Multiply((whole.slot,), (self.buffer("sign", sign),), self.layer)
        return self.made(step, scale, min(ends), max(ends))


def placed(args: Any, places: dict[Ref, int]) -> Any:
    """Return recorded arguments with ``Slot`` for tensors."""
    if type(args) is Ref:
        return Slot(places[args])
    if isinstance(args, (tuple, list)):
        return tuple(placed(arg, places) for arg in args)
    return args


def _finely(constant: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes of many bits, and their scale, for a constant that has no quantizer."""
    largest = constant.double().abs().max().clamp(min=1e-30)
    scale = (largest / 2.0 ** (CONSTANT_BITS - 1)).reshape([1] * constant.dim())
    return (constant.double() / scale).round().long(), scale


def padded(tensor: Tensor, rank: int) -> Tensor:
    """Return a tensor with as many dimensions as ``rank``, those added in front."""
    return tensor.reshape((1,) * (rank - tensor.dim()) + tuple(tensor.shape))


def ranked(whole: Whole, rank: int) -> Whole:
    """Return a tensor whose scale has as many dimensions as ``rank``."""
    return Whole(whole.slot, padded(whole.scale, rank), whole.low, whole.high)
