"""Operators that move channels about: views, splits, joins, shuffles."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from hwcost.recorder_values import Call, Ref
from hwcost.search.channels_flow import Flow, Line, only, short

#: For each dimension of an input, its place in the output, None if it is not there.
Places = Sequence[int | None]


def move(flow: Flow, call: Call, ref: Ref, places: Places, outputs: Sequence[Ref]) -> None:
    """Pass lines on to the place of their dimension; those without a place stay."""
    kept = []
    for line in flow.read(ref):
        place = places[line.dim]
        if place is None:
            flow.hold(line.labels, call, f"'{short(call)}' over channels")
        else:
            kept.append(Line(place, line.labels))
    for output in outputs:
        flow.put(output, kept)


def _all_dims(flow: Flow, call: Call) -> list[int]:
    return list(range(len(flow.shape(call.args[0]))))


def _transpose(flow: Flow, call: Call) -> None:
    places = _all_dims(flow, call)
    if len(places) > 1:
        one, other = (0, 1) if call.op.name == "aten.t" else (call.args[1], call.args[2])
        places[one], places[other] = places[other], places[one]
    move(flow, call, call.args[0], places, call.outputs)


def _permute(flow: Flow, call: Call) -> None:
    dims = [d % len(call.args[1]) for d in call.args[1]]
    places = [dims.index(d) for d in range(len(dims))]
    move(flow, call, call.args[0], places, call.outputs)


def _unsqueeze(flow: Flow, call: Call) -> None:
    places = _all_dims(flow, call)
    new = call.args[1] % (len(places) + 1)
    move(flow, call, call.args[0], [d + (d >= new) for d in places], call.outputs)


def _squeeze(flow: Flow, call: Call) -> None:
    shape = flow.shape(call.args[0])
    dims = call.args[1] if len(call.args) > 1 else range(len(shape))
    dims = {d % len(shape) for d in ((dims,) if isinstance(dims, int) else dims)}
    move(flow, call, call.args[0], without(shape, {d for d in dims if shape[d] == 1}), call.outputs)


def without(shape: Sequence[int], dims: set[int]) -> Places:
    """Return the places of dimensions where some are removed."""
    kept = [d for d in range(len(shape)) if d not in dims]
    return [kept.index(d) if d in kept else None for d in range(len(shape))]


def expand(flow: Flow, call: Call) -> None:
    """Repeat along dimensions of size 1; what fills them may be as long as what it meets.

    Not so the first, which counts samples.
    """
    ref, out = call.args[0], call.outputs[0]
    old, new = flow.shape(ref), flow.shape(out)
    more = len(new) - len(old)
    lines = [Line(d + more, labels) for d, labels in flow.read(ref)]
    sizes = zip([1] * more + list(old), new, strict=True)
    grown = [d for d, (before, after) in enumerate(sizes) if d and before < after]
    flow.put(out, [*lines, *(Line(d, flow.grow(new[d])) for d in grown)])


def _select(flow: Flow, call: Call) -> None:
    shape = flow.shape(call.args[0])
    dim = (call.args[1] if len(call.args) > 1 else 0) % len(shape)
    move(flow, call, call.args[0], without(shape, {dim}), call.outputs)


def _flip(flow: Flow, call: Call) -> None:
    dims = {d % len(flow.shape(call.args[0])) for d in call.args[1]}
    flow.put(
        call.outputs[0],
        [Line(d, x.flip(0) if d in dims else x) for d, x in flow.read(call.args[0])],
    )


def repeat(flow: Flow, call: Call) -> None:
    """Repeat along any dimension; see ``expand`` for those of size 1."""
    ref, out = call.args[0], call.outputs[0]
    old, new = flow.shape(ref), flow.shape(out)
    more = len(new) - len(old)
    times = call.args[1]
    lines = [Line(d + more, x.repeat(times[d + more])) for d, x in flow.read(ref)]
    grown = [d for d, size in enumerate([1] * more + list(old)) if d and size == 1 < times[d]]
    flow.put(out, [*lines, *(Line(d, flow.grow(new[d])) for d in grown)])


def _view(flow: Flow, call: Call) -> None:
    """Split and join dimensions; where channels are split, only one of the parts can shrink."""
    ref, out = call.args[0], call.outputs[0]
    old, new = flow.shape(ref), flow.shape(out)
    asked = call.args[1] if isinstance(call.args[1], tuple) else new
    lines = flow.read(ref)
    if prod(old) != prod(new) or 0 in old:
        for line in lines:
            flow.hold(line.labels, call, f"'{short(call)}' changes the type of the numbers")
        return
    kept = []
    for before, after in regroup(old, new):
        for line in lines:
            if line.dim in before:
                table = _spread(line, before, old).reshape([new[d] for d in after])
                free = [after.index(d) for d in after if asked[d] == -1]
                found = _split(flow, call, table, free)
                kept += [Line(after[found[0]], found[1])] if found else []
    flow.put(out, _settled(flow, call, kept))


def _settled(flow: Flow, call: Call, lines: Sequence[Line]) -> list[Line]:
    """Let repeats stay that share a dimension with channels that were there before."""
    firm = {line.dim for line in lines if not flow.is_grown(line.labels)}
    grown = [line for line in lines if line.dim in firm and flow.is_grown(line.labels)]
    for line in grown:
        flow.hold(line.labels, call, "the model's code fixes how often they repeat", shown=False)
    return [line for line in lines if not any(line is other for other in grown)]


def _spread(line: Line, dims: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return the atoms of a line over several dimensions."""
    labels = line.labels.view([-1 if d == line.dim else 1 for d in dims])
    return labels.expand([shape[d] for d in dims])


def _split(flow: Flow, call: Call, table: Tensor, free: Sequence[int]) -> tuple[int, Tensor] | None:
    """Return the dimension of a table of atoms that can shrink, and atoms along it."""
    depends = [d for d in range(table.dim()) if not torch.equal(table, _first(table, d))]
    first = [d for d in free if d in depends]
    options = [*first, *(d for d in depends[::-1] if d not in first)]
    if len(depends) > 1:
        choice = flow.choose(table.reshape(-1), len(options) + 1)
        if choice == len(options):
            flow.hold(table, call, "the model's code fixes how channels are split")
            return None
    else:
        options, choice = depends or [0], 0
    dim = options[choice]
    rows = table.movedim(dim, -1).reshape(-1, table.shape[dim])
    return dim, flow.unite_rows(rows) if len(depends) > 1 else rows[0]


def _first(table: Tensor, dim: int) -> Tensor:
    return table.narrow(dim, 0, 1).expand_as(table)


def regroup(
    old: Sequence[int], new: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return which dimensions of a shape become which of another; those of size 1 are left out.

    >>> regroup((2, 6, 5, 1), (2, 2, 3, 5))
    [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,))]
    """
    left = [d for d, size in enumerate(old) if size != 1]
    right = [d for d, size in enumerate(new) if size != 1]
    groups = []
    while left:
        before, after = [left.pop(0)], [right.pop(0)]
        while (a := prod(old[d] for d in before)) != (b := prod(new[d] for d in after)):
            if a < b:
                before.append(left.pop(0))
            else:
                after.append(right.pop(0))
        groups.append((tuple(before), tuple(after)))
    return groups


def _slice(flow: Flow, call: Call) -> None:
    ref, dim = call.args[0], call.args[1] % len(flow.shape(call.args[0]))
    if flow.shape(ref) == flow.shape(call.outputs[0]):
        flow.put(call.outputs[0], flow.read(ref))
        return
    size, part = flow.shape(ref)[dim], flow.shape(call.outputs[0])[dim]
    start = call.args[2] or 0
    start = max(start + size, 0) if start < 0 else start
    even = part and size % part == 0 and start % part == 0 and call.args[4] == 1
    _parts(flow, call, dim, part if even else 0)


def _split_rule(flow: Flow, call: Call) -> None:
    dim = call.args[2] % len(flow.shape(call.args[0]))
    sizes = {flow.shape(out)[dim] for out in call.outputs}
    _parts(flow, call, dim, sizes.pop() if len(sizes) == 1 else 0)


def _parts(flow: Flow, call: Call, dim: int, even: int) -> None:
    """Give the parts of a tensor their lines; in equal parts the same channels go.

    Args:
        flow: the walk.
        call: the call.
        dim: along which the tensor is divided.
        even: the parts' size, 0 if they differ or do not fill the dimension.
    """
    lines = flow.read(call.args[0])
    kept = [line for line in lines if line.dim != dim]
    labels = only(lines, dim, flow, call)
    if labels is not None and (not even or flow.choose(labels, 2) == 1):
        flow.hold(labels, call, "the model's code fixes how channels are divided")
    elif labels is not None:
        kept.append(Line(dim, flow.unite_rows(labels.view(-1, even))))
    for output in call.outputs:
        flow.put(output, kept)


def _glu(flow: Flow, call: Call) -> None:
    ref = call.args[0]
    dim = call.args[1] % len(flow.shape(ref))
    lines = flow.read(ref)
    kept = [line for line in lines if line.dim != dim]
    labels = only(lines, dim, flow, call)
    if labels is not None:
        kept.append(Line(dim, flow.unite_rows(labels.view(2, -1))))
    flow.put(call.outputs[0], kept)


def _shuffle(flow: Flow, call: Call) -> None:
    """Channels of groups, (groups, per group) -> (per group, groups)."""
    lines, groups = flow.read(call.args[0]), call.args[1]
    labels = only(lines, 1, flow, call)
    kept = [line for line in lines if line.dim != 1]
    if labels is not None:
        kept.append(Line(1, flow.unite_rows(labels.view(groups, -1)).repeat_interleave(groups)))
    flow.put(call.outputs[0], kept)


def _pixels(flow: Flow, call: Call) -> None:
    """Channels to positions or back, (channels, factor, factor) <-> (channels,)."""
    ref, factor = call.args[0], call.args[1]
    rank = len(flow.shape(ref))
    back = call.op.name == "aten.pixel_unshuffle"
    kept = []
    for dim, labels in flow.read(ref):
        if dim == rank - 3:
            found = labels.repeat_interleave(factor**2) if back else None
            if found is None:
                found = flow.unite_rows(labels.view(-1, factor**2).T)
            kept.append(Line(dim, found))
        elif dim > rank - 3:
            flow.hold(labels, call, f"'{short(call)}' over channels")
        else:
            kept.append(Line(dim, labels))
    flow.put(call.outputs[0], kept)


#: Operator -> its rule.
RESHAPES: dict[str, Callable[[Flow, Call], None]] = {
    **dict.fromkeys(("aten.view", "aten._unsafe_view", "aten._reshape_alias"), _view),
    **dict.fromkeys(("aten.t", "aten.transpose"), _transpose),
    **dict.fromkeys(("aten.select", "aten.unbind"), _select),
    **dict.fromkeys(("aten.split", "aten.split_with_sizes"), _split_rule),
    **dict.fromkeys(("aten.unsafe_split", "aten.unsafe_split_with_sizes"), _split_rule),
    **dict.fromkeys(("aten.pixel_shuffle", "aten.pixel_unshuffle"), _pixels),
    **dict.fromkeys(("aten.channel_shuffle", "aten.native_channel_shuffle"), _shuffle),
    "aten.permute": _permute,
    "aten.unsqueeze": _unsqueeze,
    "aten.squeeze": _squeeze,
    "aten.expand": expand,
    "aten.flip": _flip,
    "aten.repeat": repeat,
    "aten.slice": _slice,
    "aten.glu": _glu,
}

#: Operator -> its rule, where it may give a tensor channels that had none.
GROWING: dict[str, Callable[[Flow, Call], None]] = {"aten.expand": expand, "aten.repeat": repeat}
