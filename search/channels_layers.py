"""Operators with a weight: they read channels, mix them, and make new ones."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hwcost.recorder_values import Call, Ref
from hwcost.search.channels_flow import Flow, Line, only, short


def reads(flow: Flow, call: Call, weight: Ref, dim: int, labels: Tensor | None) -> None:
    """Note which channels a weight reads along a dimension, none if ``labels`` is."""
    if labels is None:
        labels = torch.zeros(flow.shape(weight)[dim], dtype=torch.int64)
    flow.tie(weight, dim, labels, "in", call)


def makes(flow: Flow, call: Call, weight: Ref, dim: int) -> Tensor:
    """Return the atoms of the channels that a weight makes along a dimension."""
    labels = flow.fresh(flow.shape(weight)[dim])
    produces(flow, call, weight, dim, labels)
    return labels


def produces(flow: Flow, call: Call, weight: Ref, dim: int, labels: Tensor) -> None:
    """Note that a weight makes these channels along a dimension."""
    if flow.shape(weight)[dim] == 1:
        flow.hold(labels, call, "it makes one channel", shown=False)
    trained = flow.constants.trained(weight)
    flow.tie(weight, dim, labels, "out" if trained else "follow", call)
    if trained:
        flow.producers.setdefault(trained, []).append(labels)


def is_weight(flow: Flow, call: Call, weight: Ref) -> bool:
    """Whether a weight is a parameter or a plain view of one; if not, what it meets stays."""
    if flow.constants.is_plain(weight):
        return True
    computed = "its weight is computed from other tensors"
    for name in sorted(flow.constants.names(weight)):
        flow.unsearched[name] = computed
    for ref in call.inputs:
        for line in flow.read(ref):
            flow.hold(line.labels, call, computed)
    return False


def _convolution(flow: Flow, call: Call) -> None:
    x, weight, bias, groups = (call.arg(n) for n in ("input", "weight", "bias", "groups"))
    if not _is_filter(flow, call) and not is_weight(flow, call, weight):
        return
    passed = {0, *_pointwise(flow, call)}
    kept = [line for line in flow.read(x) if line.dim in passed]
    for line in flow.read(x):
        if line.dim > 1 and line.dim not in passed:
            flow.hold(line.labels, call, "a convolution over channels")
    labels = only(flow.read(x), 1, flow, call)
    made = _CONVS[min(groups, 2)](flow, call, labels)
    flow.tie(bias, 0, made, "follow", call)
    flow.put(call.outputs[0], [*kept, Line(1, made)])


def _pointwise(flow: Flow, call: Call) -> list[int]:
    """Return the dimensions of positions that a convolution does not mix."""
    rank = len(flow.shape(call.outputs[0])) - 2
    if call.arg("transposed"):
        return []
    stride, padding = (_spread(call.arg(name), rank) for name in ("stride", "padding"))
    kernel = flow.shape(call.arg("weight"))[2:]
    moves = zip(kernel, stride, padding, strict=True)
    return [d + 2 for d, move in enumerate(moves) if move == (1, 1, 0)]


def _spread(values: Sequence[int], rank: int) -> Sequence[int]:
    return values if len(values) == rank else tuple(values) * rank


def _is_filter(flow: Flow, call: Call) -> bool:
    """Whether a convolution filters every channel by itself, with one filter or one for each."""
    groups, weight = call.arg("groups"), call.arg("weight")
    channels = flow.shape(call.arg("input"))[1]
    return groups == channels and weight in flow.constants.flexible


def _dense(flow: Flow, call: Call, labels: Tensor | None) -> Tensor:
    weight = call.arg("weight")
    cin, cout = (0, 1) if call.arg("transposed") else (1, 0)
    reads(flow, call, weight, cin, labels)
    return makes(flow, call, weight, cout)


def _grouped(flow: Flow, call: Call, labels: Tensor | None) -> Tensor:
    """Let whole groups go; in a depthwise convolution a group is one channel and what it makes.

    Another reading: in all groups the same channels go. All of them must have as many.
    """
    weight, groups, turned = (call.arg(n) for n in ("weight", "groups", "transposed"))
    cin, cout = flow.shape(call.arg("input"))[1], flow.shape(call.outputs[0])[1]
    if labels is None:
        labels = torch.zeros(cin, dtype=torch.int64)
        flow.hold(labels, call, "its groups read channels that stay", shown=False)
    table = labels.view(groups, -1)
    if table.shape[1] > 1 and flow.choose(labels, 3) > 0:
        return _within_groups(flow, call, table)
    group = flow.unite_rows(table.T)
    made = group.repeat_interleave(cout // groups)
    produces(flow, call, weight, 0, group.repeat_interleave(cin // groups) if turned else made)
    return made


def _within_groups(flow: Flow, call: Call, table: Tensor) -> Tensor:
    weight, turned = call.arg("weight"), call.arg("transposed")
    groups, cout = len(table), flow.shape(call.outputs[0])[1]
    if flow.choices[flow.index] > 1:
        flow.hold(table, call, "the model's code fixes how channels are divided")
    read, made = flow.unite_rows(table), flow.fresh(cout // groups)
    if turned:
        reads(flow, call, weight, 0, read.repeat(groups))
        produces(flow, call, weight, 1, made)
    else:
        reads(flow, call, weight, 1, read)
        produces(flow, call, weight, 0, made.repeat(groups))
    return made.repeat(groups)


_CONVS: dict[int, Callable[[Flow, Call, Tensor | None], Tensor]] = {1: _dense, 2: _grouped}


def _linear(flow: Flow, call: Call) -> None:
    x, weight, bias = call.args[:3]
    if not is_weight(flow, call, weight) or len(flow.shape(weight)) != 2:
        flow.pin(weight)
        return
    last = len(flow.shape(x)) - 1
    lines = flow.read(x)
    reads(flow, call, weight, 1, only(lines, last, flow, call))
    made = makes(flow, call, weight, 0)
    flow.tie(bias, 0, made, "follow", call)
    flow.put(call.outputs[0], [*(line for line in lines if line.dim != last), Line(last, made)])


def _embedding(flow: Flow, call: Call) -> None:
    weight, indices = call.args[:2]
    lines = flow.read(indices)
    made = flow.fresh(flow.shape(weight)[1])
    flow.tie(weight, 1, made, "follow", call)
    if call.op.name == "aten.embedding":
        flow.put(call.outputs[0], [*lines, Line(len(flow.shape(indices)), made)])
    else:
        for line in lines:
            flow.hold(line.labels, call, f"'{short(call)}' over channels")
        flow.put(call.outputs[0], [Line(1, made)])


def _recurrent(flow: Flow, call: Call) -> None:
    """Read the features of a sequence; what a recurrent layer makes stays."""
    weights = _input_weights(call)
    ref = call.args[0]
    features = len(flow.shape(ref)) - 1
    labels = only(flow.read(ref), features, flow, call)
    for line in (line for other in call.inputs for line in flow.lines.get(other, ())):
        if line.dim != features or line.labels is not labels:
            flow.hold(line.labels, call, f"'{short(call)}' over channels")
    for weight in weights:
        reads(flow, call, weight, 1, labels)
    if labels is not None and not call.op.name.endswith("_cell"):
        path = flow.path(call)
        if path in flow.inputs:
            flow.unite(flow.inputs[path], labels)
        flow.inputs[path] = labels


def _pack(flow: Flow, call: Call) -> None:
    """Samples and steps become one dimension."""
    lines = flow.read(call.args[0])
    for line in lines:
        if line.dim < 2:
            flow.hold(line.labels, call, f"'{short(call)}' over channels")
    flow.put(call.outputs[0], [Line(d - 1, labels) for d, labels in lines if d > 1])


def _input_weights(call: Call) -> Sequence[Ref]:
    """Return the weights that read the input: one, or one for each direction."""
    if call.op.name.endswith("_cell"):
        return [call.arg("w_ih")]
    params = call.arg("params")
    directions = 2 if call.arg("bidirectional") else 1
    layers = call.arg("num_layers") * directions
    return list(params[:: len(params) // layers][:directions])


#: Operator -> its rule.
LAYERS: dict[str, Callable[[Flow, Call], None]] = {
    "aten.convolution": _convolution,
    "aten.linear": _linear,
    "aten._pack_padded_sequence": _pack,
    "aten.embedding": _embedding,
    "aten._embedding_bag": _embedding,
    **dict.fromkeys(("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu"), _recurrent),
    **dict.fromkeys(("aten.lstm_cell", "aten.gru_cell"), _recurrent),
    **dict.fromkeys(("aten.rnn_tanh_cell", "aten.rnn_relu_cell"), _recurrent),
}
