"""Outputs of operators that have no numbers, known without running the operator.

torch has these rules too, but finds the output of a convolution, of a normalisation or of a long
sequence in milliseconds. A function here returns None where it is not certain; torch's rule runs
then, and raises its own error where shapes do not fit.
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
    return torch.empty_like(x)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if weight.dim() != 2 or x.dim() < 1 or x.shape[-1] != weight.shape[1]:
        return None
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    return _empty(x, (*x.shape[:-1], weight.shape[0]))


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
    out = _sequence(x, states[0], weights, bidirectional)
    return None if out is None else (out, *(torch.empty_like(s) for s in states))


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


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device)


#: Operator and overload -> its outputs from its arguments, or None.
OUTPUTS: dict[str, Callable[..., Any]] = {
    "aten.convolution.default": _convolution,
    "aten.batch_norm.default": _batch_norm,
    "aten.linear.default": _linear,
    "aten.scaled_dot_product_attention.default": _attention,
    "aten.lstm.input": _lstm,
    "aten.gru.input": _rnn,
    "aten.rnn_tanh.input": _rnn,
    "aten.rnn_relu.input": _rnn,
}
