"""Operators over some dimensions: the channels in these stay, those in the others pass."""

from collections.abc import Callable, Iterable, Sequence

import torch

from hwcost.recorder_values import Call
from hwcost.search.channels_flow import Flow, Line, short
from hwcost.search.channels_moves import move, without


def _reduce(flow: Flow, call: Call) -> None:
    """Sums, means, maxima, norms: the dimensions go, or have size 1 after it."""
    ref = call.args[0]
    shape = flow.shape(ref)
    dims = set(_dims(call, len(shape)))
    keeps = bool(call.arg("keepdim"))
    places = [None if d in dims else d for d in range(len(shape))]
    move(flow, call, ref, places if keeps else without(shape, dims), call.outputs)


def _dims(call: Call, rank: int) -> Iterable[int]:
    dims = call.arg("dim")
    if dims is None or dims in ((), []):
        return range(rank)
    return [d % rank for d in ((dims,) if isinstance(dims, int) else dims)] if rank else ()


def _along(flow: Flow, call: Call) -> None:
    """Softmax, sums up to an entry, sorting: what happens along a dimension stays in it."""
    ref = call.args[0]
    rank = len(flow.shape(ref))
    dims = set(_dims(call, rank)) if "dim" in call.op.names else {rank - 1}
    move(flow, call, ref, [None if d in dims else d for d in range(rank)], call.outputs)


def _roll(flow: Flow, call: Call) -> None:
    ref, _, dims = call.args[:3]
    rank = len(flow.shape(ref))
    moved = {d % rank for d in dims} if dims else set(range(rank))
    move(flow, call, ref, [None if d in moved else d for d in range(rank)], call.outputs)


def _last(count: int) -> Callable[[Flow, Call], None]:
    """Return the rule of what works over the last dimensions: pools, resizing, paddings."""

    def rule(flow: Flow, call: Call) -> None:
        ref = call.args[0]
        rank = len(flow.shape(ref))
        places = [d if d < rank - count else None for d in range(rank)]
        move(flow, call, ref, places, call.outputs)
        for other in call.inputs[1:]:
            for line in flow.read(other):
                flow.hold(line.labels, call, f"'{short(call)}' over channels")

    return rule


def _pad(flow: Flow, call: Call) -> None:
    """Pad with a constant, also among channels: those are new and stay."""
    ref, amounts = call.args[:2]
    rank = len(flow.shape(ref))
    kept = []
    for dim, labels in flow.read(ref):
        before, after = _amounts(amounts, rank - 1 - dim)
        if min(before, after) < 0:
            flow.hold(labels, call, "the model's code fixes how channels are divided")
            continue
        padding = [torch.zeros(n, dtype=torch.int64) for n in (before, after)]
        kept.append(Line(dim, torch.cat([padding[0], labels, padding[1]])))
    flow.put(call.outputs[0], kept)


def _amounts(amounts: Sequence[int], position: int) -> tuple[int, int]:
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    return pairs[position] if position < len(pairs) else (0, 0)


def _unfold(flow: Flow, call: Call) -> None:
    ref, dim = call.args[:2]
    rank = len(flow.shape(ref))
    move(flow, call, ref, [None if d == dim % rank else d for d in range(rank)], call.outputs)


def _im2col(flow: Flow, call: Call) -> None:
    """Windows as channels: each input channel becomes as many as a window has positions."""
    ref = call.args[0]
    taps = flow.shape(call.outputs[0])[-2] // flow.shape(ref)[-3]
    kept = []
    for dim, labels in flow.read(ref):
        if dim == len(flow.shape(ref)) - 3:
            kept.append(Line(dim, labels.repeat_interleave(taps)))
        elif dim == 0:
            kept.append(Line(dim, labels))
        else:
            flow.hold(labels, call, f"'{short(call)}' over channels")
    flow.put(call.outputs[0], kept)


def _index(flow: Flow, call: Call) -> None:
    """Entries at given places: the dimensions in between keep their channels."""
    ref, indices = call.args[0], call.args[1]
    rank, out = len(flow.shape(ref)), call.outputs[0]
    used = [d for d, index in enumerate(indices) if index is not None]
    fixed = any(flow.recording.tensors[indices[d]].dtype == torch.bool for d in used)
    new = len(flow.shape(out)) - (rank - len(used))
    together = used == list(range(used[0], used[-1] + 1)) if used else False
    start = used[0] if together else 0
    places: list[int | None] = [None] * rank
    for number, dim in enumerate(d for d in range(rank) if d not in used):
        places[dim] = None if fixed else number + (new if number >= start else 0)
    move(flow, call, ref, places, call.outputs)
    for index in call.inputs[1:]:
        for line in flow.read(index):
            flow.hold(line.labels, call, f"'{short(call)}' over channels")


def _index_select(flow: Flow, call: Call) -> None:
    ref, dim = call.args[:2]
    rank = len(flow.shape(ref))
    move(flow, call, ref, [None if d == dim % rank else d for d in range(rank)], call.outputs)


_REDUCTIONS = (
    *("sum", "mean", "amax", "amin", "max", "min", "prod", "any", "all", "std", "var", "median"),
    *("std_mean", "var_mean", "argmax", "argmin", "logsumexp", "nansum", "nanmean", "norm"),
    *("linalg_vector_norm", "count_nonzero", "mode", "kthvalue", "nanmedian", "aminmax"),
)
_ALONG = (
    *("_softmax", "_log_softmax", "softmax", "log_softmax", "cumsum", "cumprod", "cummax"),
    *("cummin", "logcumsumexp", "sort", "argsort", "topk", "_safe_softmax"),
)
_PLANES = (
    *("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"),
    *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "reflection_pad2d"),
    *("replication_pad2d", "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "max_pool2d"),
    *("grid_sampler_2d", "tril", "triu", "fractional_max_pool2d", "_upsample_bicubic2d_aa"),
    *("adaptive_avg_pool2d", "mkldnn_max_pool2d", "max_unpool2d", "diagonal_scatter"),
)
_LINES = (
    *("upsample_nearest1d", "upsample_linear1d", "reflection_pad1d", "replication_pad1d"),
    *("avg_pool1d", "max_pool1d", "adaptive_avg_pool1d", "_upsample_nearest_exact1d"),
)
_VOLUMES = (
    *("max_pool3d_with_indices", "avg_pool3d", "_adaptive_avg_pool3d", "adaptive_max_pool3d"),
    *("upsample_nearest3d", "upsample_trilinear3d", "reflection_pad3d", "replication_pad3d"),
    *("grid_sampler_3d", "fractional_max_pool3d", "_upsample_nearest_exact3d", "max_unpool3d"),
)

Rule = Callable[[Flow, Call], None]


def _of(names: Sequence[str], rule: Rule) -> dict[str, Rule]:
    return {"aten." + name: rule for name in names}


#: Operator -> its rule.
MIXES: dict[str, Rule] = {
    **_of(_REDUCTIONS, _reduce),
    **_of(_ALONG, _along),
    **_of(_LINES, _last(1)),
    **_of(_PLANES, _last(2)),
    **_of(_VOLUMES, _last(3)),
    "aten.roll": _roll,
    "aten.constant_pad_nd": _pad,
    "aten.unfold": _unfold,
    "aten.im2col": _im2col,
    "aten.index": _index,
    "aten.index_select": _index_select,
}
