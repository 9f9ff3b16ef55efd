"""Which parameters calls multiply by as weights, and which of their dimensions are channels."""

from math import prod

from hwcost.recorder_values import Call, Ref
from hwcost.search.points_graph import Graph

#: Operators that multiply by a weight -> name of the argument.
WEIGHTED = {
    "aten.convolution": "weight",
    "aten._convolution": "weight",
    "aten.linear": "weight",
    "aten.matmul": "other",
    "aten.mm": "mat2",
    "aten.addmm": "mat2",
    "aten.bmm": "mat2",
}

#: Those among them whose weight has its output channels last.
PRODUCTS = ("aten.matmul", "aten.mm", "aten.addmm", "aten.bmm")


def weight_of(graph: Graph, call: Call) -> str | None:
    """Return the parameter that a call multiplies by, None where there is none."""
    argument = WEIGHTED.get(call.op.name)
    name = None if argument is None else parameter_of(graph, call.arg(argument))
    return name if name is not None and _has_channels(graph, call, graph.shapes[name]) else None


def summed_weight(graph: Graph, call: Call) -> str | None:
    """Return the parameter that a call multiplies by as it is stored, all of it.

    None for bmm: what einsum makes of its result may have the channels anywhere.
    """
    name = None if call.op.name == "aten.bmm" else weight_of(graph, call)
    if name is None:
        return None
    view = graph.recording.tensors[call.arg(WEIGHTED[call.op.name])].shape
    return name if sorted(view) == sorted(graph.shapes[name]) else None


def _has_channels(graph: Graph, call: Call, stored: tuple[int, ...]) -> bool:
    """Whether a dimension of a parameter, as it is stored, has a call's output channels.

    A layer may read a part of it; a product reads all.
    """
    view = graph.recording.tensors[call.arg(WEIGHTED[call.op.name])].shape
    if call.op.name in PRODUCTS:
        matrix = stored[::-1] if _is_turned(graph, call) else stored
        return view in (matrix, (1, *matrix)) and len(stored) == 2
    if prod(view) != prod(stored):
        return prod(view) < prod(stored) and len(view) == len(stored)
    axis, place = axis_of(graph, call), int(bool(call.arg("transposed")))
    return axis is None or (axis < len(stored) and stored[axis] == view[place])


def axis_of(graph: Graph, call: Call) -> int | None:
    """Return the dimension of a stored weight that has a call's output channels, None for none."""
    turned = _is_turned(graph, call)
    if call.op.name in PRODUCTS:
        return 0 if turned else 1
    if call.op.name == "aten.linear":
        return 1 if turned else 0
    transposed = bool(call.arg("transposed"))
    return None if turned or (transposed and call.arg("groups") > 1) else int(transposed)


def parameter_of(graph: Graph, ref: Ref | None) -> str | None:
    """Return the parameter in whose memory a tensor lies."""
    return None if ref is None else graph.stored.get(graph.recording.tensors[ref].storage)


def _is_turned(graph: Graph, call: Call) -> bool:
    """Whether a call reads a weight in another order than that in which it is stored."""
    ref = call.arg(WEIGHTED[call.op.name])
    view, name = graph.recording.tensors[ref], parameter_of(graph, ref)
    strides = [step for size, step in zip(view.shape, view.stride, strict=True) if size > 1]
    if strides != sorted(strides, reverse=True):
        return True
    stored = graph.shapes[name] if name is not None else view.shape
    # A matrix of one row or column has the same strides either way.
    return 1 in stored and view.shape[-2:] == stored[::-1] != stored


def unquantized(graph: Graph, found: set[str]) -> list[str]:
    """Return why weights stay as they are that products and layers read, but not as weights."""
    lines: dict[str, str] = {}
    for call in graph.recording.calls:
        names = {parameter_of(graph, ref) for ref in call.inputs} - found - {None}
        if call.op.name not in WEIGHTED or not graph.operands(call):
            continue
        for name in sorted(n for n in names if n and len(graph.shapes[n]) > 1):
            what = call.op.name.partition(".")[2]
            lines.setdefault(name, f"{name}: as {what!r} reads it, the weight is not quantized")
    return list(lines.values())
