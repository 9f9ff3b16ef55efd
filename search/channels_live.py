"""Calls whose results nobody reads: what they do with channels holds none of them back."""

from hwcost.recorder_values import Recording, Ref


def dead_calls(recording: Recording) -> frozenset[int]:
    """Return the indices of calls on which neither an output nor a parameter or buffer depends.

    A call without a tensor for a result counts as read: Python may have got a number.
    """
    tensors = recording.tensors
    needed: set[Ref] = set(recording.outputs)
    # A view that is read later need not be the tensor through which its memory was written.
    kept = (*recording.outputs, *recording.parameters, *recording.buffers)
    storages = {tensors[ref].storage for ref in kept}
    dead = []
    for index in range(len(recording.calls) - 1, -1, -1):
        call = recording.calls[index]
        writes = [call.arg(name) for name in call.op.writes]
        written = {tensors[ref].storage for ref in writes if type(ref) is Ref}
        read = needed.intersection(call.outputs) or not storages.isdisjoint(written)
        if call.outputs and not read:
            dead.append(index)
            continue
        needed.update(call.inputs)
        storages.update(tensors[ref].storage for ref in call.inputs)
    return frozenset(dead)
