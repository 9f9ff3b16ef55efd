"""How far the units of a module stay apart: up to where operators mix them.

Up to there, a unit's values depend on whether that one is masked, and on no other. The operator
that mixes them, if linear, adds up what each of them brings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hwcost.search.attributions_tape import MARK, Node, Step

aten = torch.ops.aten

#: Operators that look at one channel, dimension 1, at a time. Their first result counts.
_CHANNELWISE = {
    *("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
    *("miopen_batch_norm", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d"),
    *("max_pool1d", "avg_pool1d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
    *("adaptive_max_pool2d", "adaptive_max_pool3d", "upsample_nearest1d", "upsample_nearest2d"),
    *("upsample_bilinear2d", "upsample_linear1d", "reflection_pad1d", "reflection_pad2d"),
    *("replication_pad1d", "replication_pad2d", "_prelu_kernel"),
}

#: Operators that look at one number at a time, though torch does not say so.
_POINTWISE = {"clone", "detach", "alias", "_to_copy", "hardswish", "hardswish_", "gelu"}

#: Operators that are linear in their first input, and which of its dimensions they sum over.
_MIXING = {"convolution": 1, "addmm": 1, "mm": 1}

#: How many numbers the parts of a linear operator's result may take.
_PARTS = 1 << 25


@dataclass(frozen=True)
class Local:
    """What runs before units are mixed.

    Attributes:
        nodes: which operators they are, besides the mark.
        dims: number of a tensor -> the dimension that its units lie along.
        mixing: operators that mix units and are linear: index -> number of their input.
    """

    nodes: frozenset[int]
    dims: Mapping[int, int]
    mixing: Mapping[int, int]


def find_local(nodes: Sequence[Node], kept: Sequence[bool], tensors: Any, unit_dim: int) -> Local:
    """Return how far the units of the marked tensor stay apart.

    Where an operator that mixes units overwrites a tensor, they count as mixed from the start.
    """
    dims: dict[int, int] = {}
    local: set[int] = set()
    mixing: dict[int, int] = {}
    made = {n for node, k in zip(nodes, kept, strict=True) if k for n in node.outputs}
    marks = [node for node, k in zip(nodes, kept, strict=True) if k and node.func == MARK]
    start = marks[0].outputs[0]
    dims[start] = unit_dim % tensors[start].dim()
    plain = Local(frozenset(), dict(dims), {})
    apart, read = set(marks[0].writes), set[int]()
    for index, node in enumerate(nodes):
        if not kept[index] or node is marks[0]:
            continue
        if node.func == MARK:
            return plain
        inputs = [n for _, n in node.inputs if n in made]
        dim = dim_after(node, inputs, dims, tensors)
        if dim is not None and read.isdisjoint(node.overwrites):
            local.add(index)
            dims[node.outputs[0]] = dim
            apart |= node.writes
        elif not node.overwrites.isdisjoint(apart):
            return plain
        else:
            read |= node.reads
        if index not in local and _mixes(node, inputs, dims, tensors):
            mixing[index] = inputs[0]
    hidden = {n for i in local for n in nodes[i].outputs} - set(dims)
    later = {n for i, node in enumerate(nodes) if i not in local for _, n in node.inputs}
    return plain if hidden & later else Local(frozenset(local), dims, mixing)


def name_of(node: Node) -> str:
    """Return the name of an operator."""
    return MARK if node.func == MARK else str(node.func._schema.name).removeprefix("aten::")


def dim_after(node: Node, inputs: list[int], dims: Mapping[int, int], tensors: Any) -> int | None:
    """Return the dimension of units in a result, None if they do not stay apart."""
    known = {dims.get(n) for n in inputs}
    if len(known) != 1 or None in known or not inputs:
        return None
    (dim,) = known
    assert dim is not None
    before, after = tensors[inputs[0]].shape, tensors[node.outputs[0]].shape
    same = before == after and all(tensors[n].shape == before for n in inputs)
    if torch.Tag.pointwise in node.func.tags or name_of(node) in _POINTWISE:
        return dim if same else None
    if len(inputs) != 1 or node.inputs[0][1] != inputs[0]:
        return None
    return _moved(node, dim, before, after)


def _moved(node: Node, dim: int, before: torch.Size, after: torch.Size) -> int | None:
    name = name_of(node)
    if name in _CHANNELWISE:
        whole = len(before) >= 3 or "norm" in name or name == "_prelu_kernel"
        return dim if dim == 1 and whole and len(after) == len(before) else None
    if name == "convolution":
        args = node.args
        depthwise = not args[6] and args[8] == before[1] == args[1].shape[0]
        return dim if depthwise and dim == 1 else None
    if name == "mean" and len(node.args) > 1 and node.args[1]:
        gone = {d % len(before) for d in node.args[1]}
        if dim in gone:
            return None
        keep = len(node.args) > 2 and node.args[2]
        return dim if keep else dim - sum(d < dim for d in gone)
    if name == "constant_pad_nd":
        padded = len(node.args[1]) // 2
        return dim if dim < len(before) - padded else None
    if name in ("view", "_unsafe_view", "reshape"):
        return _viewed(dim, before, after)
    if name == "permute":
        order: list[int] = [d % len(before) for d in node.args[1]]
        return order.index(dim)
    if name == "transpose":
        one, other = (d % len(before) for d in node.args[1:3])
        swapped: dict[int, int] = {one: other, other: one}
        return swapped.get(dim, dim)
    return None


def _viewed(dim: int, before: torch.Size, after: torch.Size) -> int | None:
    """Return where a dimension lies in a view, None if it is split or merged."""
    outer = before[:dim].numel()
    for at, size in enumerate(after):
        if size == before[dim] and after[:at].numel() == outer:
            return at
    return None


def _mixes(node: Node, inputs: list[int], dims: Mapping[int, int], tensors: Any) -> bool:
    """Whether an operator is linear in units, its only marked input, and mixes them."""
    name = name_of(node)
    if name not in _MIXING or len(inputs) != 1 or dims.get(inputs[0]) != _MIXING[name]:
        return False
    at = 1 if name == "addmm" else 0
    if [place for place, n in node.inputs if n == inputs[0]] != [(at, -1)]:
        return False
    if name == "convolution" and node.args[8] != 1:
        return False
    units = tensors[inputs[0]].shape[_MIXING[name]]
    return bool(tensors[node.outputs[0]].numel() * units <= _PARTS)


def parts_of(step: Step, change: Tensor) -> Tensor:
    """Return what each unit's change adds to the result of a linear operator.

    Args:
        step: the operator.
        change: of its input, by how much it changes.

    Returns:
        Of shape ``(units, *result)``.
    """
    name = step.func._schema.name.removeprefix("aten::")
    if name != "convolution":
        scale = step.kwargs.get("alpha", 1) if name == "addmm" else 1
        weight = step.args[2] if name == "addmm" else step.args[1]
        parts: Tensor = scale * change.t().unsqueeze(2) * weight.unsqueeze(1)
        return parts
    return torch.stack([_convolved(step, change, unit) for unit in range(change.shape[1])])


def _convolved(step: Step, change: Tensor, unit: int) -> Tensor:
    _, weight, _, *rest = step.args
    alone = weight.narrow(0 if rest[3] else 1, unit, 1)
    result: Tensor = step.func(change.narrow(1, unit, 1), alone, None, *rest)
    return result
