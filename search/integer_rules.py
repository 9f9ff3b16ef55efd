"""Rules of the integer program for what computes: convolutions, products, sums, quantizers."""

from collections.abc import Callable

import torch
from torch import Tensor

from hwcost.errors import SearchError
from hwcost.recorder_values import Call, Ref
from hwcost.search.integer_builder import Builder
from hwcost.search.integer_steps import Convolve, Linear, Lookup, Matmul, Quantize, Requantize, Step
from hwcost.search.integer_values import INT32, Constant, Curve, Raw, Value, Whole

#: From the builder, the call's index and the call to what it returns.
Rule = Callable[[Builder, int, Call], tuple[Value, ...]]


def quantizer(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """``hwcost.fake_quantize``: requantization, a table, or codes known from the start."""
    x = b.value(call.arg("x"))
    scales = b.value(call.arg("scale")).constant
    if scales is None:
        raise SearchError("a quantizer's scale is not a buffer")
    shape = [1] * len(b.shape(call.arg("x")))
    numbers = scales.value.float(), torch.tensor(call.arg("low")), torch.tensor(call.arg("high"))
    scale, low, high = (_along(t, shape, call.arg("axis")) for t in numbers)
    if x.constant is not None:
        return (_constant(x.constant.value, scale, low, high),)
    if x.raw is not None:
        return (_first(b, x.raw, scale, low, high),)
    if x.curve is not None and not x.curve.plain:
        return (_table(b, x.curve, scale, low, high),)
    return (_requantized(b, b.whole(x), scale, low, high),)


def _along(tensor: Tensor, shape: list[int], axis: int) -> Tensor:
    sizes = list(shape)
    if tensor.numel() > 1:
        sizes[axis] = -1
    return tensor.reshape(sizes)


def _constant(x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Value:
    codes = (x / scale.to(x.dtype)).round().double()
    codes = torch.minimum(torch.maximum(codes, low.double()), high.double())
    value = (codes.to(x.dtype) * scale.to(x.dtype)).to(x.dtype)
    return Value(constant=Constant(value, codes.long(), scale.double()))


def _first(b: Builder, raw: Raw, scale: Tensor, low: Tensor, high: Tensor) -> Value:
    tensors = {"scale": scale, "low": low.float(), "high": high.float()}
    names = tuple(b.buffer(kind, tensor) for kind, tensor in tensors.items())
    step = Quantize((raw.slot,), names, b.layer)
    return b.result(b.made(step, scale.double(), int(low.min()), int(high.max()), b.front))


def _table(b: Builder, curve: Curve, scale: Tensor, low: Tensor, high: Tensor) -> Value:
    codes = (curve.values / scale).round()
    codes = torch.minimum(torch.maximum(codes, low.float()), high.float()).to(torch.int32)
    step = Lookup((curve.slot,), (b.buffer("table", codes),), b.layer, curve.low)
    return b.result(b.made(step, scale.double(), int(codes.min()), int(codes.max())))


def _requantized(b: Builder, whole: Whole, scale: Tensor, low: Tensor, high: Tensor) -> Value:
    limits = (torch.tensor(t).float() / scale for t in (whole.floor, whole.ceiling))
    floor, ceiling = (t.round().clamp(-INT32, INT32).long() for t in limits)
    least = torch.minimum(torch.maximum(low, floor), high)
    most = torch.minimum(torch.maximum(high.clamp(max=INT32), floor), torch.maximum(ceiling, low))
    most = torch.minimum(most, high)
    # In float32, as kernels have it that multiply by a float: the same sums are rounded up.
    ratio = (whole.scale.float() / scale.float()).double()
    ends = int(least.min()), int(most.max())
    same = bool((ratio == 1).all()) and least.numel() == most.numel() == 1
    if same and ends[0] <= whole.low and whole.high <= ends[1]:
        return b.result(Whole(whole.slot, scale.double(), whole.low, whole.high))
    step: Step = b.requantize(whole, ratio, least, most)
    assert isinstance(step, Requantize)
    return b.result(b.made(step, scale.double(), *ends))


def convolution(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """``aten.convolution`` of every rank, transposed ones as well."""
    x = _one_scale(b, b.codes(b.value(call.arg("input"))))
    weight = _weight(b, call.arg("weight"))
    args = call.args[3:]
    transposed, groups = call.arg("transposed"), call.arg("groups")
    assert weight.codes is not None and weight.scale is not None
    scale, size = _per_output(weight.scale, transposed, groups), weight.codes.abs()
    if transposed:
        size = size.view(groups, size.shape[0] // groups, *size.shape[1:])
        size = size.sum([1, *range(3, size.dim())]).view(-1)
    else:
        size = size.flatten(1).sum(1)
    total = (x.scale.view(()) * scale).expand(len(size))
    bias = _bias(b, call.arg("bias"), total)
    names = b.buffer("weight", _small(weight.codes)), b.buffer("bias", bias)
    step = Convolve((x.slot,), names, b.layer, args)
    whole = _accumulated(b, step, size * x.largest + bias.abs(), _shown(total, call, b))
    return (b.result(whole),)


def _per_output(scale: Tensor, transposed: bool, groups: int) -> Tensor:
    """Return the scale of each output channel, or one for all."""
    axis = 1 if transposed else 0
    if scale.numel() != scale.shape[axis]:
        raise SearchError("the weight's scales do not belong to output channels")
    flat = scale.reshape(-1)
    return flat.repeat(groups) if transposed and len(flat) > 1 else flat


def _shown(scale: Tensor, call: Call, b: Builder) -> Tensor:
    """Return scales of channels as they broadcast to the call's result."""
    rank = len(b.shape(call.outputs[0]))
    scale = scale[:1] if bool((scale == scale[0]).all()) else scale
    return scale.reshape(1, -1, *([1] * (rank - 2)))


def linear(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """``aten.linear``, of tokens as well."""
    x = b.codes(b.value(call.arg("input")))
    weight = _weight(b, call.arg("weight"))
    assert weight.codes is not None and weight.scale is not None
    return _of_matrix(b, x, weight.codes, weight.scale, call.arg("bias"))


def _of_matrix(
    b: Builder, x: Whole, codes: Tensor, scales: Tensor, added: Ref | None = None
) -> tuple[Value, ...]:
    """Return a linear layer's result.

    Args:
        x: its input.
        codes: of its weight, ``(channels, inputs)``.
        scales: of its weight, as many dimensions.
        added: its bias.
    """
    x = b.uniform(x, [x.scale.dim() - 1])
    if scales.shape[1] > 1:
        raise SearchError("the weight's scales do not belong to output channels")
    total = (x.scale * scales.view(-1)).expand(*x.scale.shape[:-1], len(codes))
    if added is not None and total.numel() > len(codes):
        raise SearchError("a bias is added to tokens of different scales")
    bias = _bias(b, added, total.reshape(-1)[: len(codes)])
    names = b.buffer("weight", _small(codes)), b.buffer("bias", bias)
    step = Linear((x.slot,), names, b.layer)
    size = codes.abs().sum(1) * x.largest + bias.abs()
    return (b.result(_accumulated(b, step, size, total)),)


def addmm(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """``aten.addmm`` with a weight on the right and a bias."""
    x = b.codes(b.value(call.arg("mat1")))
    if call.arg("alpha") != 1 or call.arg("beta") != 1:
        raise SearchError("alpha and beta must be 1")
    weight = _weight(b, call.arg("mat2"))
    assert weight.codes is not None and weight.scale is not None
    bias = call.arg("self")
    if b.shape(bias) != (weight.codes.shape[1],):
        raise SearchError("what it adds is no bias of its output channels")
    return _of_matrix(b, x, weight.codes.t(), weight.scale.t(), bias)


def matmul(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """``aten.matmul`` of two tensors that are both quantized, one a weight maybe."""
    values = [b.value(ref) for ref in call.args[:2]]
    if any(v.constant is not None and v.constant.codes is None for v in values):
        raise SearchError("its weight is not quantized")
    first, weight = b.codes(values[0]), values[1].constant
    if weight is not None and weight.codes is not None and weight.codes.dim() == 2:
        assert weight.scale is not None
        if len(weight.scale) == 1:
            return _of_matrix(b, first, weight.codes.t(), weight.scale.t())
    second = b.codes(values[1])
    if min(first.scale.dim(), second.scale.dim()) < 2:
        raise SearchError("a product with a vector")
    first = b.uniform(first, [first.scale.dim() - 1])
    second = b.uniform(second, [second.scale.dim() - 2])
    size = torch.tensor([b.shape(call.args[0])[-1] * first.largest * second.largest])
    step = Matmul((first.slot, second.slot), (), b.layer)
    return (b.result(_accumulated(b, step, size, first.scale * second.scale)),)


def _one_scale(b: Builder, whole: Whole) -> Whole:
    return b.uniform(whole, range(whole.scale.dim()))


def _weight(b: Builder, ref: Ref) -> Constant:
    weight = b.value(ref).constant
    if weight is None or weight.codes is None or weight.scale is None:
        raise SearchError("its weight is not quantized")
    return weight


def _bias(b: Builder, ref: Ref | None, scale: Tensor) -> Tensor:
    """Return a bias in the accumulator's scale, int32, ``(channels,)``."""
    if ref is None:
        return torch.zeros(len(scale), dtype=torch.int32)
    bias = b.value(ref).constant
    if bias is None:
        raise SearchError("its bias is not a constant")
    codes = (bias.value.double() / scale).round()
    if bool((codes.abs() >= INT32).any()):
        raise SearchError("its bias has more than 32 bits")
    return codes.to(torch.int32)


def _accumulated(b: Builder, step: Step, size: Tensor, scale: Tensor) -> Whole:
    most = int(size.max())
    if most >= INT32:
        raise SearchError(f"its accumulator may reach {most}, which has more than 32 bits")
    return b.made(step, scale, -most, most)


def _small(codes: Tensor) -> Tensor:
    """Return codes in the smallest type that holds them, int8 unless they are large."""
    for dtype in (torch.int8, torch.int16):
        limits = torch.iinfo(dtype)
        if limits.min <= int(codes.min()) and int(codes.max()) <= limits.max:
            return codes.to(dtype)
    return codes.to(torch.int32)


#: Operator -> rule.
COMPUTING: dict[str, Rule] = {
    "hwcost.fake_quantize": quantizer,
    "aten.convolution": convolution,
    "aten.linear": linear,
    "aten.addmm": addmm,
    "aten.matmul": matmul,
    "aten.mm": matmul,
    "aten.bmm": matmul,
}
