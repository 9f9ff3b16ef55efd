"""Sizes of an op as one short text, such as ``16x32x32 -> 32x16x16 k3x3 s2``."""

import math
from collections.abc import Callable, Mapping, Sequence

from hwcost.ops import defaults

#: Size -> its value in one row; NaN or absent where the row lacks it.
Sizes = Mapping[str, float]


def sizes_text(kind: str, sizes: Sizes) -> str:
    """Return the main sizes of an op; what is usual (stride 1, one sample) is left out."""
    known = {name: value for name, value in sizes.items() if not math.isnan(value)}
    return _WRITERS.get(kind, _flat)({**defaults(), **known}).strip()


def _number(value: float) -> str:
    return "?" if math.isnan(value) else f"{round(value, 2):.10g}"


def _by(numbers: Sequence[float]) -> str:
    return "x".join(_number(n) for n in numbers)


def _get(sizes: Sizes, name: str) -> float:
    return sizes.get(name, math.nan)


def _batch(sizes: Sizes) -> str:
    batch = _get(sizes, "batch")
    return "" if batch == 1 else f" b{_number(batch)}"


def _rank(sizes: Sizes) -> str:
    """The dimensions that the op has: ``w``, ``hw`` or ``dhw``."""
    used = [axis for axis in "dhw" if any(sizes.get(part + axis, 1) != 1 for part in "iok")]
    return {"d": "dhw", "h": "hw"}.get(used[0], "w") if used else "hw"


def _uniform(letter: str, numbers: Sequence[float]) -> str:
    """``s2`` for a stride of 2 in each dimension, ``s2x1`` otherwise, nothing for 1."""
    if all(n == 1 for n in numbers):
        return ""
    same = len(set(numbers)) == 1
    return f" {letter}{_number(numbers[0]) if same else _by(numbers)}"


def _conv(sizes: Sizes) -> str:
    axes = _rank(sizes)

    def of(part: str) -> list[float]:
        return [_get(sizes, part + axis) for axis in axes]

    before, after = of("i"), of("o")
    source = [_get(sizes, "cin"), *([] if all(map(math.isnan, before)) else before)]
    kernel = f" k{_by(of('k'))}"
    groups = _get(sizes, "groups")
    grouped = "" if groups == 1 else f" g{_number(groups)}"
    if groups > 1 and groups == _get(sizes, "cin"):
        grouped = " dw"
    steps = _uniform("s", of("s")) + _uniform("d", of("d"))
    result = [_get(sizes, "cout"), *after]
    return f"{_by(source)} -> {_by(result)}{kernel}{steps}{grouped}{_batch(sizes)}"


def _linear(sizes: Sizes) -> str:
    positions = _get(sizes, "positions")
    at = [] if positions == 1 else [positions]
    source, result = [*at, _get(sizes, "cin")], [*at, _get(sizes, "cout")]
    return f"{_by(source)} -> {_by(result)}{_batch(sizes)}"


def _rnn(sizes: Sizes) -> str:
    gates = _get(sizes, "gates")
    cell = {1: "rnn", 3: "gru", 4: "lstm"}.get(int(gates) if gates == gates else 0, "")
    return f"{_linear({**sizes, 'batch': 1})} {cell}{_batch(sizes)}"


def _matmul(sizes: Sizes) -> str:
    m, n, k = (_get(sizes, name) for name in "mnk")
    return f"{_by([m, k])} @ {_by([k, n])}{_batch(sizes)}"


def _attention(sizes: Sizes) -> str:
    heads, lq, lk, dhead = (_number(_get(sizes, name)) for name in ("heads", "lq", "lk", "dhead"))
    return f"{heads} heads of {dhead}, {lq} x {lk}{_batch(sizes)}"


def _flat(sizes: Sizes) -> str:
    return _number(_get(sizes, "elements"))


#: Kind -> how its sizes are written; the others have ``elements``.
_WRITERS: dict[str, Callable[[Sizes], str]] = {
    "conv": _conv,
    "conv_transpose": _conv,
    "pool": _conv,
    "linear": _linear,
    "rnn": _rnn,
    "matmul": _matmul,
    "attention": _attention,
}
