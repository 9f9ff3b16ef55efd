"""Operators on several tensors entry by entry: channels that meet stand or fall together."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hwcost.recorder_alternatives import ALTERNATIVES
from hwcost.recorder_quantize import FAKE_QUANTIZE
from hwcost.recorder_values import Call, Ref, refs_in
from hwcost.search.channels_flow import Flow, Line, short

#: A tensor, and for each dimension of the result the tensor's own that meets it there.
Operand = tuple[Ref, Mapping[int, int]]

#: Operators entry by entry that are not marked as such.
POINTWISE = frozenset(
    "aten." + name
    for name in (
        *("_prelu_kernel", "_to_copy", "detach", "alias", "lift_fresh", "contiguous", "dropout"),
        *("native_dropout", "alpha_dropout", "rrelu", "rrelu_with_noise", "masked_fill", "copy"),
        *("log_sigmoid_forward", "clone", "where", "zero", "fill", "complex", "polar", "hardswish"),
        *("mish", "threshold", "floor_divide", "rsub", "bernoulli", "real", "imag", "bucketize"),
        *("fake_quantize_per_tensor_affine_cachemask", "_assert_tensor_metadata", "resolve_conj"),
        *("fake_quantize_per_tensor_affine", "resolve_neg", "feature_dropout", "to"),
    )
)


def pointwise(flow: Flow, call: Call) -> None:
    """Pass on the channels of all tensors, aligned at the end as torch does."""
    if not call.outputs:
        return
    shape = flow.shape(call.outputs[0])
    operands = [(ref, aligned(len(flow.shape(ref)), len(shape))) for ref in call.inputs]
    lines = merge(flow, call, operands, shape)
    for out in call.outputs:
        if flow.shape(out) == shape:
            flow.put(out, lines)


def aligned(rank: int, whole: int) -> dict[int, int]:
    """Return which dimension of a tensor meets which of a result of higher rank."""
    return {d + whole - rank: d for d in range(rank)}


def merge(flow: Flow, call: Call, operands: Sequence[Operand], shape: Sequence[int]) -> list[Line]:
    """Return the lines of a result, in every dimension those of all operands united."""
    found: list[Line] = []
    carrying = [(ref, dims) for ref, dims in operands if ref in flow.lines]
    places = {dims_inverse(dims).get(x.dim) for ref, dims in carrying for x in flow.lines[ref]}
    for place in range(len(shape)):
        met = [(r, d[place]) for r, d in operands if place in d and flow.shape(r)[d[place]] > 1]
        if place in places:
            found += [Line(place, labels) for labels in _meet(flow, call, met)]
        else:
            _stay(flow, call, met)
    return found


def dims_inverse(dims: Mapping[int, int]) -> dict[int, int]:
    """Return a tensor's own dimension -> the result's."""
    return {own: place for place, own in dims.items()}


def _meet(flow: Flow, call: Call, met: Sequence[tuple[Ref, int]]) -> list[Tensor]:
    """Return the labels along one dimension of the result."""
    flexible = [(r, d) for r, d in met if r in flow.constants.flexible and r not in flow.lines]
    lines = [
        [x.labels for x in flow.lines.get(ref, ()) if x.dim == dim]
        for ref, dim in met
        if (ref, dim) not in flexible
    ]
    lines.sort(key=lambda own: bool(own) and flow.is_grown(own[0]))
    first = lines[0]
    if any(len(other) != len(first) for other in lines) or (flexible and len(first) > 1):
        for labels in (one for other in lines for one in other):
            flow.hold(labels, call, f"'{short(call)}' with a tensor that keeps all its channels")
        _stay(flow, call, flexible)
        return []
    for other in lines[1:]:
        for ours, theirs in zip(first, other, strict=True):
            flow.unite(ours, theirs)
    for ref, dim in flexible:
        flow.tie(ref, dim, first[0], "follow", call)
    return first


def _stay(flow: Flow, call: Call, met: Sequence[tuple[Ref, int]]) -> None:
    """Keep parameters whole along a dimension in which they meet no channels."""
    for ref, dim in met:
        if ref in flow.constants.flexible and flow.constants.names(ref):
            zeros = torch.zeros(flow.shape(ref)[dim], dtype=torch.int64)
            flow.tie(ref, dim, zeros, "follow", call)


def _cat(flow: Flow, call: Call) -> None:
    """Join tensors along a dimension; in the others, their channels unite."""
    shape = flow.shape(call.outputs[0])
    dim = (call.args[1] or 0) % len(shape)
    parts = [ref for ref in refs_in(call.args[:1]) if len(flow.shape(ref)) == len(shape)]
    rest = {d: d for d in range(len(shape)) if d != dim}
    kept = merge(flow, call, [(ref, rest) for ref in parts], shape)
    lines = [[x.labels for x in flow.lines.get(ref, ()) if x.dim == dim] for ref in parts]
    _stay(flow, call, [(r, dim) for r, own in zip(parts, lines, strict=True) if not own])
    if any(len(own) > 1 for own in lines):
        for labels in (one for own in lines for one in own):
            flow.hold(labels, call, f"'{short(call)}' of channels and positions in one dimension")
    elif any(lines):
        joined = [
            own[0] if own else torch.zeros(flow.shape(ref)[dim], dtype=torch.int64)
            for ref, own in zip(parts, lines, strict=True)
        ]
        kept.append(Line(dim, torch.cat(joined)))
    flow.put(call.outputs[0], kept)


def _stack(flow: Flow, call: Call) -> None:
    shape = flow.shape(call.outputs[0])
    new = (call.args[1] or 0) % len(shape)
    dims = {d: d - (d > new) for d in range(len(shape)) if d != new}
    operands = [(ref, dims) for ref in refs_in(call.args[:1])]
    flow.put(call.outputs[0], merge(flow, call, operands, shape))


#: Operator -> its rule.
MERGES: dict[str, Callable[[Flow, Call], None]] = {
    "aten.cat": _cat,
    "aten.stack": _stack,
    ALTERNATIVES: pointwise,
    FAKE_QUANTIZE: pointwise,
}
