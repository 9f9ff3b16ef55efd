"""Normalisations: their parameters follow channels, their statistics may mix them."""

from collections.abc import Callable

import torch
from torch import Tensor

from hwcost.recorder_values import Call, Ref
from hwcost.search.channels_flow import Flow, Line, only


def _per_channel(flow: Flow, call: Call) -> None:
    """Batch and instance normalisation: every channel by itself."""
    ref, *vectors = call.args[:5]
    kept, labels = _of_channels(flow, call, ref)
    _follow(flow, call, [(vector, 0) for vector in vectors], labels)
    if labels is not None:
        _features(flow, call, labels)
        flow.put(call.outputs[0], [*kept, Line(1, labels)])
    else:
        flow.put(call.outputs[0], kept)


def _of_channels(flow: Flow, call: Call, ref: Ref) -> tuple[list[Line], Tensor | None]:
    """Return lines along the samples, and the channels' atoms; those along positions stay."""
    lines = flow.read(ref)
    samples = call.op.name != "aten.batch_norm"
    for line in lines:
        if line.dim > 1 or (line.dim == 0 and not samples):
            flow.hold(line.labels, call, "a normalisation over channels")
    kept = [line for line in lines if line.dim == 0 and samples]
    return kept, only(lines, 1, flow, call)


def _follow(
    flow: Flow, call: Call, vectors: list[tuple[Ref | None, int]], labels: Tensor | None
) -> None:
    for vector, dim in vectors:
        if vector is None:
            continue
        size = flow.shape(vector)[dim]
        own = torch.zeros(size, dtype=torch.int64) if labels is None else labels
        flow.tie(vector, dim, own, "follow", call)


def _features(flow: Flow, call: Call, labels: Tensor) -> None:
    path = flow.path(call)
    known = flow.features.setdefault(path, labels)
    if known.shape == labels.shape:
        flow.unite(known, labels)
    else:
        flow.hold(labels, call, "one module normalises tensors of several widths")


def _layer_norm(flow: Flow, call: Call) -> None:
    ref, shape = call.args[:2]
    first = len(flow.shape(ref)) - len(shape)
    lines = flow.read(ref)
    inside = [line for line in lines if line.dim >= first]
    for out in call.outputs:  # statistics too
        flow.put(out, [line for line in lines if line.dim < first])
    vectors = [v for v in (call.arg("weight"), call.arg("bias")) if v is not None]
    if len(inside) != 1:
        for line in inside:
            flow.hold(line.labels, call, "a normalisation over channels and positions")
        for vector in vectors:
            flow.read(vector)
        return
    dim, labels = inside[0]
    _follow(flow, call, [(vector, dim - first) for vector in vectors], labels)
    table = labels.view([-1 if d == dim else 1 for d in range(first, first + len(shape))])
    mixing(flow, call, table.expand(shape).reshape(-1), 1)
    flow.put(call.outputs[0], lines)


def mixing(flow: Flow, call: Call, labels: Tensor, groups: int) -> None:
    """Note that a module's statistics mix these features."""
    path = flow.path(call)
    known, known_groups = flow.norms.setdefault(path, (labels, groups))
    if known.shape == labels.shape and groups == known_groups:
        flow.unite(known, labels)
    else:
        flow.hold(labels, call, "one module normalises tensors of several widths")


def _group_norm(flow: Flow, call: Call) -> None:
    """Let whole groups go, or the same channels of all groups, whichever are the smaller."""
    ref, weight, bias, groups = (call.arg(n) for n in ("input", "weight", "bias", "group"))
    kept, labels = _of_channels(flow, call, ref)
    _follow(flow, call, [(weight, 0), (bias, 0)], labels)
    if labels is None:
        flow.put(call.outputs[0], kept)
        return
    table = labels.view(groups, -1)
    whole = 1 < table.shape[1] <= groups
    if groups > 1 and table.shape[1] > 1:
        choice = flow.choose(labels, 3)
        if choice == 2:
            flow.hold(labels, call, "the model's code fixes how channels are divided")
        whole ^= choice == 1
    else:
        whole = table.shape[1] == 1
    statistics = kept
    if whole:
        statistics = [*kept, Line(1, flow.unite_rows(table.T))]
    else:
        flow.unite_rows(table)
        mixing(flow, call, labels, groups)
    _features(flow, call, labels)
    for out, lines in zip(call.outputs, ([*kept, Line(1, labels)], *[statistics] * 2), strict=True):
        flow.put(out, lines)


def refuse_nested(flow: Flow) -> None:
    """Keep channels whose statistics are computed in a module that normalises others inside."""
    calls = [call for call in flow.recording.calls if call.op.name in NORMS]
    for path, (labels, _) in flow.norms.items():
        inside = [c for c in calls if _is_inside(flow.path(c), path) and c.op.name in _MIXING]
        if any(flow.path(call) != path for call in inside):
            own = next(call for call in inside if flow.path(call) == path)
            flow.hold(labels, own, "the module normalises other channels as well")


def _is_inside(path: str, module: str) -> bool:
    return path == module or not module or path.startswith(module + ".")


_MIXING = {
    "aten.native_layer_norm": _layer_norm,
    "aten.rms_norm": _layer_norm,
    "aten.native_group_norm": _group_norm,
}

#: Operator -> its rule.
NORMS: dict[str, Callable[[Flow, Call], None]] = {
    "aten.batch_norm": _per_channel,
    "aten.instance_norm": _per_channel,
    **_MIXING,
}
