"""Where the tensors of a network are quantized, which of them share a scale, and what reads them.

A tensor is quantized once, where it is made, for all its readers. Not quantized is the sum that
a layer accumulates while only a folded normalisation or an activation reads it, which hardware
does before it writes the result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from hwcost.recorder_values import Call, Ref
from hwcost.search.points_graph import ADDING, FUSED, Graph
from hwcost.search.points_weights import (
    PRODUCTS,
    WEIGHTED,
    axis_of,
    parameter_of,
    summed_weight,
    unquantized,
    weight_of,
)
from hwcost.search.sites import Sites
from hwcost.search.swap import user_class

__all__ = ["PRODUCTS", "WEIGHTED", "Layer", "Point", "Points", "find_points"]


@dataclass(frozen=True)
class Point:
    """Tensors that are quantized alike: one scale, one choice of bits.

    Attributes:
        name: of the first of them, as messages call it.
        sites: numbers of their sites.
        positive: whether none of them is ever negative.
        fixed: whether an input or an output of the network is among them.
        given: whether all of them are inputs, about which data may tell more.
        sums: by site, the weight of the layer whose sum it holds, through a ReLU at most; or None.
        relus: paths of the layers whose only work is to make them positive, for this point alone.
    """

    name: str
    sites: tuple[int, ...]
    positive: bool
    fixed: bool
    given: bool
    relus: tuple[str, ...] = ()
    sums: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Layer:
    """A weight that can be quantized.

    Attributes:
        weight: name of the parameter.
        bias: name of its layer's bias, None without.
        axis: dimension of the output channels.
        whole: whether it has one scale and one choice: a transposed convolution in groups, whose
            output channels are no dimension of the weight, or a weight that is read turned.
        point: index of the point that it reads, -1 if that is not quantized.
    """

    weight: str
    bias: str | None
    axis: int
    whole: bool
    point: int


@dataclass(frozen=True)
class Points:
    """Everything that is quantized.

    Attributes:
        points: of activations.
        layers: of weights.
        missed: tensors that stay as they are, and why, one line each.
    """

    points: tuple[Point, ...]
    layers: tuple[Layer, ...]
    missed: tuple[str, ...]


def find_points(model: nn.Module, sites: Sites) -> Points:
    """Return what is quantized in a network whose sites are known."""
    graph = Graph(sites.recording)
    wanted = [value for value in graph.made if _is_stored(graph, value)]
    found = ((value, _mark(graph, value, sites.hidden)) for value in wanted)
    reached = {value: number for value, number in found if number is not None}
    groups = _groups(graph, reached)
    known: dict[Ref, bool] = {}
    points = [_point(model, graph, sites, reached, group, known) for group in groups]
    place = {value: index for index, group in enumerate(groups) for value in group}
    layers = tuple(_layers(model, graph, place))
    missed = [_missed(graph, value) for value in wanted if value not in reached]
    missed += unquantized(graph, {layer.weight for layer in layers})
    return Points(tuple(points), layers, tuple(missed))


def _is_stored(graph: Graph, value: Ref) -> bool:
    """Whether a value is written to memory, as numbers that can be quantized."""
    recording = graph.recording
    readers = graph.readers.get(value, [])
    if not recording.tensors[value].dtype.is_floating_point:
        return False
    if value in graph.outputs or graph.producer(value) is None:
        return bool(readers) or value in graph.outputs
    if not readers or _is_inside_attention(graph, value, readers):
        return False
    return len(readers) > 1 or not _is_fused(graph, value, recording.calls[readers[0]])


def _is_fused(graph: Graph, value: Ref, reader: Call) -> bool:
    """Whether what makes a value does its only reader's work too; a join of tensors does not."""
    call = graph.producer(value)
    joins = call is not None and call.op.name in ("aten.cat", "aten.stack")
    return reader.op.name in FUSED and len(graph.operands(reader)) == 1 and not joins


def _is_inside_attention(graph: Graph, value: Ref, readers: Sequence[int]) -> bool:
    """Whether a value is a score of torch's attention, which is one op."""
    call = graph.producer(value)
    assert call is not None
    if graph.recording.scopes[call.scope].cls != "MultiheadAttention":
        return False
    names = {graph.recording.calls[i].op.name.rpartition(".")[2] for i in readers}
    if call.op.name == "aten._softmax":
        return True
    products = call.op.name in ("aten.bmm", "aten.baddbmm", "aten.add")
    return products and bool(names & {"_softmax", "_safe_softmax"})


def _mark(graph: Graph, value: Ref, hidden: frozenset[int]) -> int | None:
    """Return the first site that a value passes as it is, if all its readers come after."""
    if value in graph.bypassed:
        return None
    marks = (mark for mark in graph.marks.get(value, []) if mark not in hidden)
    return next(marks, None)


def _groups(graph: Graph, reached: dict[Ref, int]) -> list[list[Ref]]:
    """Return sets of values that share a scale, in order of their first."""
    parent = {value: value for value in reached}

    def root(value: Ref) -> Ref:
        while parent[value] is not value:
            value = parent[value]
        return value

    for values in _meetings(graph):
        known = [value for value in values if value in parent]
        for other in known[1:]:
            parent[root(other)] = root(known[0])
    groups: dict[Ref, list[Ref]] = {}
    for value in reached:
        groups.setdefault(root(value), []).append(value)
    return list(groups.values())


def _meetings(graph: Graph) -> Iterator[Sequence[Ref]]:
    """Yield values that must share a scale: operands of a sum, inputs of one layer."""
    inputs: dict[str, list[Ref]] = {}
    for call in graph.recording.calls:
        operands = graph.operands(call)
        if call.op.name in ADDING and len(operands) > 1:
            yield operands
        weight = weight_of(graph, call)
        if weight is not None and operands:
            inputs.setdefault(weight, []).append(operands[0])
    yield from inputs.values()


def _point(
    model: nn.Module,
    graph: Graph,
    sites: Sites,
    reached: dict[Ref, int],
    group: Sequence[Ref],
    known: dict[Ref, bool],
) -> Point:
    given = [graph.producer(value) is None for value in group]
    numbers = tuple(reached[value] for value in group)
    positive = all(graph.is_positive(value, known) for value in group)
    relus = [path for value in group if (path := _relu(model, graph, value)) is not None]
    return Point(
        name=_name(sites, numbers[0]),
        sites=numbers,
        positive=positive,
        relus=tuple(relus) if positive else (),
        sums=tuple(_sum(graph, value) for value in group),
        fixed=any(given) or any(value in graph.outputs for value in group),
        given=all(given),
    )


def _sum(graph: Graph, value: Ref) -> str | None:
    """Return the weight of the layer whose sums a value holds; negative ones may be 0."""
    call = graph.producer(value)
    if call is not None and call.op.name in ("aten.relu", "aten.relu_"):
        value = graph.operands(call)[0]
        call = graph.producer(value) if graph.is_same(call.inputs[0], value) else None
    return None if call is None else summed_weight(graph, call)


def _relu(model: nn.Module, graph: Graph, value: Ref) -> str | None:
    """Return the layer that makes a value, if it is a ReLU that runs once and reads it alone."""
    call, scopes = graph.producer(value), graph.recording.scopes
    if call is None or call.op.name not in ("aten.relu", "aten.relu_"):
        return None
    path = scopes[call.scope].path
    once = sum(scope.path == path for scope in scopes) == 1
    alone = all(len(graph.readers[operand]) == 1 for operand in graph.operands(call))
    plain = user_class(model.get_submodule(path)) is nn.ReLU
    return path if once and alone and plain else None


def _name(sites: Sites, number: int) -> str:
    around, site = sites.found[number]
    words = [site.function] if site.function else []
    times = [f"#{site.number}"] if site.function and site.number else []
    calls = [f"call {site.call}"] if site.call else []
    index = [f"[{site.place}]"] if site.place >= 0 else [site.key] if site.key else []
    return " ".join([around.path or "model", *words, *times, *calls, *index])


def _layers(model: nn.Module, graph: Graph, place: dict[Ref, int]) -> Iterator[Layer]:
    """Yield every weight once, by its first call."""
    calls: dict[str, list[Call]] = {}
    for call in graph.recording.calls:
        weight = weight_of(graph, call)
        if weight is not None and graph.operands(call) and "parametrizations" not in weight:
            calls.setdefault(weight, []).append(call)
    for weight, found in calls.items():
        first, axes = found[0], {axis_of(graph, call) for call in found}
        bias = first.arg("self" if first.op.name == "aten.addmm" else "bias")
        yield Layer(
            weight=weight,
            bias=parameter_of(graph, bias),
            axis=next((axis for axis in axes if axis is not None), 0),
            whole=len(axes) > 1 or None in axes,
            point=place.get(graph.operands(first)[0], -1),
        )


def _missed(graph: Graph, value: Ref) -> str:
    call = graph.producer(value)
    if call is None:
        return "an input that is no argument by itself is not quantized"
    layer = graph.recording.scopes[call.scope].path or "the model"
    return f"{layer}: the result of {call.op.name.partition('.')[2]!r} is not quantized"
