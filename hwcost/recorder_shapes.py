"""Outputs of operators that have no numbers, known without running the operator.

torch has these rules too, but takes up to milliseconds for one, and loads its compiler for the
first. A function here returns None where it is not certain; torch's own rule runs then, and
raises its own error where shapes do not fit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    *_: Any,
) -> Tensor | None:
    rank = weight.dim() - 2
    if transposed or x.dim() != rank + 2 or x.shape[1] != weight.shape[1] * groups:
        return None
    if not x.is_contiguous() or weight.shape[0] % groups or min(x.shape) == 0:
        return None
    sizes = [
        (x.shape[i + 2] + 2 * p - d * (weight.shape[i + 2] - 1) - 1) // s + 1
        for i, (s, p, d) in enumerate(
            zip(_spread(stride, rank), _spread(padding, rank), _spread(dilation, rank), strict=True)
        )
    ]
    if min(sizes) < 1:
        return None
    return _empty(x, (x.shape[0], weight.shape[0], *sizes))


def _spread(values: Sequence[int], rank: int) -> Sequence[int]:
    return list(values) * rank if len(values) == 1 else values


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    *_: Any,
) -> Tensor | None:
    given = [t for t in (weight, bias, mean, var) if t is not None]
    if training or mean is None or x.dim() < 2 or any(t.numel() != x.shape[1] for t in given):
        return None
    return _alike(x)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if weight.dim() != 2 or x.dim() < 1 or x.shape[-1] != weight.shape[1]:
        return None
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    return _empty(x, (*x.shape[:-1], weight.shape[0]))


def _experts(x: Tensor, weights: Tensor, offsets: Tensor | None = None, *_: Any) -> Tensor | None:
    if offsets is None or x.dim() != 2 or weights.dim() != 3 or x.shape[1] != weights.shape[1]:
        return None
    return _empty(x, (x.shape[0], weights.shape[2]))


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor | None:
    if not 2 < q.dim() == k.dim() == v.dim() or q.shape[-1] != k.shape[-1]:
        return None
    if k.shape[:-1] != v.shape[:-1] or q.shape[:-3] != k.shape[:-3]:
        return None
    if k.shape[-3] == 0 or q.shape[-3] % k.shape[-3]:
        return None
    return _empty(q, (*q.shape[:-1], v.shape[-1]))


def _sequence(
    x: Tensor, state: Tensor, weights: Sequence[Tensor], bidirectional: bool
) -> Tensor | None:
    """Return the output at every step of a recurrent network; ``state`` has the last one's."""
    if x.shape[-1] != weights[0].shape[1] or state.dim() != x.dim():
        return None
    return _empty(x, (*x.shape[:-1], state.shape[-1] * (2 if bidirectional else 1)))


def _lstm(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...] | None:
    batch = x.shape[0] if batch_first else x.shape[1]
    if x.dim() != 3 or any(
        s.shape[:2] != _layers(num_layers, bidirectional, batch) for s in states
    ):
        return None
    # torch runs over (steps, batch, features), and turns the result around.
    out = _sequence(x.transpose(0, 1) if batch_first else x, states[0], weights, bidirectional)
    out = out.transpose(0, 1) if out is not None and batch_first else out
    return None if out is None else (out, *(_empty(s, s.shape) for s in states))


def _rnn(
    x: Tensor,
    state: Tensor,
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...] | None:
    rest = has_biases, num_layers, dropout, train, bidirectional, batch_first
    return _lstm(x, [state], weights, *rest)


def _layers(num_layers: int, bidirectional: bool, batch: int) -> tuple[int, int]:
    return num_layers * (2 if bidirectional else 1), batch


def _unary(x: Tensor, *_: Any, **__: Any) -> Tensor | None:
    return _alike(x) if x.is_floating_point() else None


def _unary_in_place(x: Tensor, *_: Any, **__: Any) -> Tensor | None:
    return x if x.is_floating_point() else None


def _binary(x: Tensor, y: Tensor | float, *_: Any, **options: Any) -> Tensor | None:
    if not x.is_floating_point() or options.keys() - {"alpha"}:
        return None
    if not isinstance(y, Tensor):
        return _alike(x) if isinstance(y, (int, float)) else None
    if y.dtype != x.dtype:
        return None
    if x.shape == y.shape and x.stride() == y.stride():
        return _alike(x)
    if not (x.is_contiguous() and y.is_contiguous()):
        return None
    shape = _broadcast(x.shape, y.shape)
    return None if shape is None else _empty(x, shape)


def _binary_in_place(x: Tensor, y: Tensor | float, *_: Any, **options: Any) -> Tensor | None:
    if not x.is_floating_point() or options.keys() - {"alpha"}:
        return None
    if isinstance(y, Tensor):
        fits = y.dtype == x.dtype and _broadcast(x.shape, y.shape) == tuple(x.shape)
        return x if fits else None
    return x if isinstance(y, (int, float)) else None


def _broadcast(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...] | None:
    if len(first) < len(second):
        first, second = second, first
    second = (1,) * (len(first) - len(second)) + tuple(second)
    pairs = list(zip(first, second, strict=True))
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        return None
    return tuple(b if a == 1 else a for a, b in pairs)


def _mean(
    x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, **options: Any
) -> Tensor | None:
    if not dim or options or not x.is_floating_point() or not x.is_contiguous():
        return None
    dims = {d % max(x.dim(), 1) for d in dim}
    if len(dims) != len(dim) or any(not -x.dim() <= d < x.dim() for d in dim):
        return None
    kept = [1 if i in dims else size for i, size in enumerate(x.shape)]
    return _empty(x, kept if keepdim else [s for i, s in enumerate(x.shape) if i not in dims])


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    if first.dim() < 1 or not -first.dim() <= dim < first.dim():
        return None
    dim %= first.dim()
    rest = [(*t.shape[:dim], *t.shape[dim + 1 :]) for t in tensors]
    same = all(t.dim() == first.dim() and t.dtype == first.dtype for t in tensors)
    if not same or any(r != rest[0] for r in rest) or not all(t.is_contiguous() for t in tensors):
        return None
    return _empty(first, (*rest[0][:dim], sum(t.shape[dim] for t in tensors), *rest[0][dim:]))


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, ...] | None:
    rank = len(shape)
    given = [t for t in (weight, bias) if t is not None]
    if not rank or tuple(x.shape[-rank:]) != tuple(shape) or not x.is_contiguous():
        return None
    if any(tuple(t.shape) != tuple(shape) for t in given):
        return None
    statistics = (*x.shape[:-rank], *(1,) * rank)
    return _empty(x, x.shape), _empty(x, statistics), _empty(x, statistics)


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    positions: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, ...] | None:
    given = [t for t in (weight, bias) if t is not None]
    if not x.is_contiguous() or any(tuple(t.shape) != (channels,) for t in given):
        return None
    if channels % groups or x.numel() != batch * channels * positions:
        return None
    return _empty(x, x.shape), _empty(x, (batch, groups)), _empty(x, (batch, groups))


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device)


def _alike(x: Tensor) -> Tensor | None:
    """Return a tensor with the shape and strides of ``x``, None where ``x`` has gaps."""
    if x.is_contiguous():  # torch.empty_like takes 30 times as long on meta tensors
        return _empty(x, x.shape)
    expected = 1
    for size, step in sorted(zip(x.shape, x.stride(), strict=True), key=lambda pair: pair[1]):
        if step != expected:
            return None
        expected *= size
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)


_UNARY = (
    *("relu", "hardtanh", "gelu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "mish"),
    *("leaky_relu", "elu", "softplus", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "neg", "erf"),
)
_BINARY = ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "add.Scalar", "mul.Scalar")

#: Operator and overload -> its outputs from its arguments, or None.
OUTPUTS: dict[str, Callable[..., Any]] = {
    "aten.convolution.default": _convolution,
    "aten._convolution.default": _convolution,
    "aten.batch_norm.default": _batch_norm,
    "aten.linear.default": _linear,
    "aten._grouped_mm.default": _experts,
    "aten.scaled_dot_product_attention.default": _attention,
    "aten.lstm.input": _lstm,
    "aten.gru.input": _rnn,
    "aten.rnn_tanh.input": _rnn,
    "aten.rnn_relu.input": _rnn,
    "aten.mean.dim": _mean,
    "aten.cat.default": _cat,
    "aten.native_layer_norm.default": _layer_norm,
    "aten.native_group_norm.default": _group_norm,
    "aten.pow.Tensor_Scalar": _binary,
    **{f"aten.{name}.default": _unary for name in _UNARY},
    **{f"aten.{name}_.default": _unary_in_place for name in _UNARY if name != "softplus"},
    **{f"aten.{name}": _binary for name in _BINARY},
    **{f"aten.{name.replace('.', '_.')}": _binary_in_place for name in _BINARY},
}
