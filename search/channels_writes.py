"""Operators that overwrite a tensor: others that lie in the same memory change with it."""

from hwcost.recorder_values import Call, Ref
from hwcost.search.channels_flow import Flow, Line, short


def written(flow: Flow, call: Call) -> None:
    """Give channels that are written into a tensor to all that lie in its memory.

    A tensor that was filled with one number takes them as they come. Any other keeps its own, and
    what is written there stays.
    """
    for name in call.op.writes:
        old = call.arg(name)
        if type(old) is not Ref or not call.outputs:
            continue
        new = call.outputs[0]
        lines = flow.lines.get(new, ())
        known = {line.dim for line in flow.lines.get(old, ())}
        if not {line.dim for line in lines} <= known and not _share(flow, old, new, lines):
            for line in lines:
                flow.hold(line.labels, call, f"'{short(call)}' writes them into another tensor")
            flow.lines.pop(new, None)


def _share(flow: Flow, old: Ref, new: Ref, lines: tuple[Line, ...]) -> bool:
    """Give lines to all tensors in the memory of ``old``; return whether they fit into each."""
    tensors, constants = flow.recording.tensors, flow.constants
    storage = tensors[old].storage
    there = [Ref(r) for r in range(new) if tensors[r].storage == storage]
    if any(r not in constants.flexible or constants.names(r) for r in there):
        return False
    if any(tensors[r].producer < 0 for r in there):
        return False
    found = {ref: [_placed(flow, ref, new, line) for line in lines] for ref in there}
    if not all(line for placed in found.values() for line in placed):
        return False
    for ref, placed in found.items():
        constants.flexible.discard(ref)
        flow.put(ref, [line for line in placed if line is not None])
    return True


def _placed(flow: Flow, ref: Ref, new: Ref, line: Line) -> Line | None:
    """Return a line of one tensor as a line of another in the same memory."""
    own, other = flow.recording.tensors[new], flow.recording.tensors[ref]
    if not own.stride or not other.stride:
        return None
    wanted = own.shape[line.dim], own.stride[line.dim]
    pairs = list(zip(other.shape, other.stride, strict=True))
    return Line(pairs.index(wanted), line.labels) if pairs.count(wanted) == 1 else None
