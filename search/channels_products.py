"""Matrix products and attention: by a parameter they are layers, of two activations they are not.

What is summed over cannot be left out of a product of two activations: it stays.
"""

from collections.abc import Callable

from hwcost.recorder_values import Call, Ref
from hwcost.search.channels_flow import Flow, Line, only, short
from hwcost.search.channels_layers import makes, reads
from hwcost.search.channels_pointwise import Operand, aligned, merge


def _matmul(flow: Flow, call: Call) -> None:
    _product(flow, call, call.args[0], call.args[1], None)


def _addmm(flow: Flow, call: Call) -> None:
    names = ("mat1", "mat2") if call.op.name == "aten.addmm" else ("batch1", "batch2")
    _product(flow, call, call.arg(names[0]), call.arg(names[1]), call.arg("self"))


def _product(flow: Flow, call: Call, left: Ref, right: Ref, added: Ref | None) -> None:
    out, constants = call.outputs[0], flow.constants
    if _is_matrix(flow, right) and left not in constants.flexible:
        lines = _by_weight(flow, call, left, right, (-1, -2, -1))
    elif _is_matrix(flow, left) and right not in constants.flexible:
        lines = _by_weight(flow, call, right, left, (-2, -1, -2))
    else:
        lines = _of_activations(flow, call, left, right)
    flow.put(out, lines)
    if added is not None:
        rank = len(flow.shape(out))
        operands = [(ref, aligned(len(flow.shape(ref)), rank)) for ref in (out, added)]
        flow.lines[out] = tuple(merge(flow, call, operands, flow.shape(out)))


def _is_matrix(flow: Flow, ref: Ref) -> bool:
    """Whether a tensor is a plain view of one parameter, with two dimensions above 1 at most."""
    return (
        flow.constants.is_plain(ref)
        and len(flow.shape(ref)) > 1
        and set(flow.shape(ref)[:-2]) <= {1}
    )


def _by_weight(
    flow: Flow, call: Call, ref: Ref, weight: Ref, dims: tuple[int, int, int]
) -> list[Line]:
    """Return the lines of a product with a parameter.

    Args:
        flow: the walk.
        call: the call.
        ref: what is multiplied.
        weight: the parameter.
        dims: what is summed over, of ``ref`` and of ``weight``; and ``weight``'s other one.
    """
    rank, out = len(flow.shape(ref)), call.outputs[0]
    own, summed = dims[0] % rank, dims[1] % len(flow.shape(weight))
    other = dims[2] % len(flow.shape(weight))
    lines = flow.read(ref)
    if rank < 2 or len(flow.shape(out)) < rank:
        return _hold(flow, call, lines) + _hold(flow, call, flow.read(weight))
    reads(flow, call, weight, summed, only(lines, own, flow, call))
    more = len(flow.shape(out)) - rank
    kept = [Line(d + more, labels) for d, labels in lines if d != own]
    return [*kept, Line(own + more, makes(flow, call, weight, other))]


def _of_activations(flow: Flow, call: Call, left: Ref, right: Ref) -> list[Line]:
    shape = flow.shape(call.outputs[0])
    ranks = len(flow.shape(left)), len(flow.shape(right))
    lines = flow.read(left), flow.read(right)
    summed = ranks[0] - 1, max(ranks[1] - 2, 0)
    for own, dim in zip(lines, summed, strict=True):
        _hold(flow, call, [line for line in own if line.dim == dim])
    if min(ranks) < 2:
        return _hold(flow, call, [*lines[0], *lines[1]])
    batch = range(len(shape) - 2)
    operands: list[Operand] = [
        (ref, {p: d for p, d in aligned(rank, len(shape)).items() if p in batch})
        for ref, rank in zip((left, right), ranks, strict=True)
    ]
    rows = [Line(len(shape) - 2, x.labels) for x in lines[0] if x.dim == ranks[0] - 2]
    columns = [Line(len(shape) - 1, x.labels) for x in lines[1] if x.dim == ranks[1] - 1]
    return [*merge(flow, call, operands, shape), *rows, *columns]


def _hold(flow: Flow, call: Call, lines: list[Line] | tuple[Line, ...]) -> list[Line]:
    for line in lines:
        flow.hold(line.labels, call, f"'{short(call)}' of two activations sums over channels")
    return []


def _attention(flow: Flow, call: Call) -> None:
    """Heads go in queries, keys and values alike; features of a head in the values only."""
    query, key, value, mask = (call.arg(n) for n in ("query", "key", "value", "attn_mask"))
    out = call.outputs[0]
    shape = flow.shape(out)
    rank = len(shape)
    for ref, dims in ((query, (-1,)), (key, (-1, -2)), (value, (-2,)), (mask, (-1,))):
        places = {d + rank for d in dims}
        lines = () if ref is None else flow.read(ref)
        _hold(flow, call, [line for line in lines if line.dim in places])
    inner = {d: d for d in range(rank - 2)}
    operands: list[Operand] = [(ref, inner) for ref in (query, key, value)]
    if mask is not None:
        own = aligned(len(flow.shape(mask)), rank)
        operands.append((mask, {p: d for p, d in own.items() if p < rank - 2}))
    heads = {flow.shape(ref)[:-2] for ref in (query, key, value)}
    if len(heads) > 1:
        _hold(flow, call, [x for ref in call.inputs for x in flow.read(ref) if x.dim < rank - 2])
        kept = []
    else:
        kept = merge(flow, call, operands, shape)
    kept += [line for line in flow.read(query) if line.dim == rank - 2]
    kept += [line for line in flow.read(value) if line.dim == rank - 1]
    flow.put(out, kept)


#: Operator -> its rule.
PRODUCTS: dict[str, Callable[[Flow, Call], None]] = {
    **dict.fromkeys(("aten.matmul", "aten.mm", "aten.bmm"), _matmul),
    **dict.fromkeys(("aten.addmm", "aten.baddbmm"), _addmm),
    "aten.scaled_dot_product_attention": _attention,
}
