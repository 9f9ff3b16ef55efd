"""Rules of the integer program for functions of single numbers: exact ones, and tables."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hwcost.errors import SearchError
from hwcost.recorder_values import Call, Ref, product
from hwcost.search.integer_builder import Builder, padded, placed
from hwcost.search.integer_rules import Rule
from hwcost.search.integer_steps import filled, invoke, plain_name, tensor_of
from hwcost.search.integer_values import Curve, Value, Whole

#: Pointwise operators that torch does not list as such.
UNLISTED = {"aten.hardswish", "aten._prelu_kernel", "aten.prelu", "aten.hardsigmoid", "aten.mish"}

#: The most numbers of a table: for 256 codes, those of 4,096 channels.
_TABLE = 2**20

#: From the builder and the call to whole numbers.
_Exact = Callable[[Builder, Call], Whole]


def pointwise(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """A function of single numbers: in whole numbers where it is exact, and as a table."""
    values = [b.value(ref) for ref in call.inputs]
    curve = _curve(b, call, values)
    name, why = plain_name(call.op), f"{call.op.name} of what it reads has no exact form"
    whole: Whole | None = None
    try:
        missing = next((v.why for v in values if v.why and v.curve is None), "")
        if missing:
            raise SearchError(missing)
        if name in EXACT:
            whole = EXACT[name](b, call)
    except SearchError as error:
        why = str(error)
    if whole is None and curve is None:
        raise SearchError(why)
    return (Value(whole=whole, curve=curve, why="" if whole else why),)


def _curve(b: Builder, call: Call, values: list[Value]) -> Curve | None:
    """Return the result as a function of the one tensor of few bits it follows from."""
    curves = [v.curve for v in values if v.constant is None]
    roots = {(c.slot, c.low) if c else None for c in curves}
    if len(roots) != 1 or None in roots:
        return None
    first = next(c for c in curves if c is not None)
    rank = len(b.shape(call.outputs[0]))
    tensors = [_over_codes(value, rank) for value in values]
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    if product(shape) > _TABLE:
        return None
    tensors = [t.expand(shape).contiguous() for t in tensors]
    args = placed(call.args, {ref: i for i, ref in enumerate(call.inputs)})
    return Curve(
        first.slot, first.low, tensor_of(invoke(call.op, filled(args, tensors, 1)), 0), False
    )


def _over_codes(value: Value, rank: int) -> Tensor:
    """Return a tensor's numbers for each code, ``(codes or 1, ...)``."""
    if value.constant is not None:
        return padded(value.constant.value, rank)[None]
    assert value.curve is not None
    values = value.curve.values
    return values.view(len(values), *([1] * (rank + 1 - values.dim())), *values.shape[1:])


def _operand(b: Builder, arg: Any) -> Whole | Tensor:
    """Return a constant's numbers, or codes."""
    if not isinstance(arg, Ref):
        return torch.tensor(float(arg), dtype=torch.float64)
    value = b.value(arg)
    if value.constant is not None and value.constant.codes is None:
        return value.constant.value.double()
    return b.codes(value)


def _rank(b: Builder, call: Call) -> int:
    return len(b.shape(call.outputs[0]))


def _sum(b: Builder, call: Call, first: float, second: float) -> Whole:
    """Return ``first * self + second * other``."""
    rank = _rank(b, call)
    one, two = (_operand(b, arg) for arg in call.args[:2])
    if isinstance(one, Tensor):
        one, two, first, second = two, one, second, first
    assert isinstance(one, Whole)
    one = one if first == 1 else b.times(one, torch.tensor(first), rank)
    if isinstance(two, Tensor):
        return b.plus(one, two * second, rank)
    two = two if second == 1 else b.times(two, torch.tensor(second), rank)
    return b.plus(one, two, rank)


def _mul(b: Builder, call: Call) -> Whole:
    one, two = (_operand(b, arg) for arg in call.args[:2])
    if isinstance(one, Tensor):
        one, two = two, one
    assert isinstance(one, Whole)
    return b.times(one, two, _rank(b, call))


def _div(b: Builder, call: Call) -> Whole:
    one, two = (_operand(b, arg) for arg in call.args[:2])
    if isinstance(one, Tensor) or isinstance(two, Whole) or call.arg("rounding_mode"):
        raise SearchError("it divides by what is not constant")
    return b.times(one, 1 / two, _rank(b, call))


def _neg(b: Builder, call: Call) -> Whole:
    return b.times(b.codes(b.value(call.inputs[0])), torch.tensor(-1.0), _rank(b, call))


def _clamped(b: Builder, call: Call, low: float | None, high: float | None) -> Whole:
    """Let a clamp wait for the next quantizer; one at 0 of codes from 0 on does nothing."""
    whole = b.whole(b.value(call.inputs[0]))
    floor = whole.floor if low is None else max(whole.floor, float(low))
    ceiling = whole.ceiling if high is None else min(max(whole.ceiling, floor), float(high))
    floor = min(floor, ceiling)
    if whole.low >= 0 and floor == 0:
        floor = -torch.inf
    return Whole(whole.slot, whole.scale, whole.low, whole.high, floor, ceiling)


def batch_norm(b: Builder, index: int, call: Call) -> tuple[Value, ...]:
    """A batch norm that has nothing to be folded into: a factor and an offset per channel."""
    rank = _rank(b, call)
    ones = torch.ones(b.shape(call.arg("input"))[1], dtype=torch.float64)
    found = [b.value(ref).constant if ref is not None else None for ref in call.args[1:5]]
    weight, bias, mean, variance = (None if c is None else c.value.double() for c in found)
    if mean is None or variance is None:
        raise SearchError("it has no running statistics")
    factor = (ones if weight is None else weight) / (variance + call.arg("eps")).sqrt()
    offset = (0 * ones if bias is None else bias) - mean * factor
    along = (1, -1, *([1] * (rank - 2)))
    whole = b.times(b.codes(b.value(call.arg("input"))), factor.view(along), rank)
    return (b.result(b.plus(whole, offset.view(along), rank)),)


#: Operator -> its form in whole numbers.
EXACT: dict[str, _Exact] = {
    "aten.add": lambda b, c: _sum(b, c, 1, c.arg("alpha")),
    "aten.sub": lambda b, c: _sum(b, c, 1, -c.arg("alpha")),
    "aten.rsub": lambda b, c: _sum(b, c, -c.arg("alpha"), 1),
    "aten.mul": _mul,
    "aten.div": _div,
    "aten.neg": _neg,
    "aten.relu": lambda b, c: _clamped(b, c, 0, None),
    "aten.relu6": lambda b, c: _clamped(b, c, 0, 6),
    "aten.hardtanh": lambda b, c: _clamped(b, c, c.arg("min_val"), c.arg("max_val")),
    "aten.clamp": lambda b, c: _clamped(b, c, c.arg("min"), c.arg("max")),
    "aten.clamp_min": lambda b, c: _clamped(b, c, c.arg("min"), None),
    "aten.clamp_max": lambda b, c: _clamped(b, c, None, c.arg("max")),
}

#: Operator -> rule.
SINGLE: dict[str, Rule] = {
    **dict.fromkeys([*EXACT, *sorted(UNLISTED)], pointwise),
    "aten.batch_norm": batch_norm,
}
