"""Layers that are one op: engines compute parts of its channels, in forms of their own."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from hwcost.recorder_values import Call, Recording, Ref
from hwcost.structure import Buffers
from hwcost.tracing_bits import Rounding

_CONVS = ("aten.convolution", "aten._convolution")


class Joins(NamedTuple):
    """Where the results of several engines become one tensor.

    Attributes:
        parts: the calls that put results together -> the convolutions that made these.
        picks: the calls that pick channels for such a convolution alone, or order the channels
            put together: a matter of addresses.
    """

    parts: Mapping[int, tuple[int, ...]]
    picks: frozenset[int]


def joins(recording: Recording, rounding: Rounding) -> Joins:
    """Return the calls that only put together what several engines made.

    Each part is a convolution of channels of the same tensor, whose weights say by which engines
    it is computed, others than the other parts'; nobody else reads its result.
    """
    reads = Counter(ref for call in recording.calls for ref in call.inputs)
    reads.update(recording.outputs)
    parts = {}
    for index, call in enumerate(recording.calls):
        if call.op.name == "aten.cat" and len(call.inputs) > 1:
            made = tuple(recording.tensors[ref].producer for ref in call.inputs)
            alone = all(reads[ref] == 1 for ref in call.inputs)
            calls = [recording.calls[i] for i in made if i >= 0]
            if alone and _are_parts(calls, rounding) and len(_read(recording, calls)) == 1:
                parts[index] = made
    picks = {index for index in _picks(recording, parts) if _picks_alone(recording, index, reads)}
    return Joins(parts, frozenset(picks))


def _picks(recording: Recording, parts: Mapping[int, tuple[int, ...]]) -> Iterator[int]:
    """Yield the calls before parts and after what puts them together."""
    for made in parts.values():
        for index in made:
            yield recording.tensors[recording.calls[index].args[0]].producer
    for index, call in enumerate(recording.calls):
        if any(recording.tensors[ref].producer in parts for ref in call.inputs):
            yield index


def _picks_alone(recording: Recording, index: int, reads: Counter[Ref]) -> bool:
    """Whether a call picks channels, for one reader or of what has no other."""
    if index < 0 or recording.calls[index].op.name != "aten.index_select":
        return False
    call = recording.calls[index]
    return reads[call.outputs[0]] == 1 or reads[call.args[0]] == 1


def _read(recording: Recording, calls: Sequence[Call]) -> set[int]:
    """Return the storages that convolutions read channels of."""
    found = set()
    for call in calls:
        info = recording.tensors[call.args[0]]
        made = recording.calls[info.producer] if info.producer >= 0 else None
        picked = made is not None and made.op.name == "aten.index_select"
        found.add(recording.tensors[made.args[0]].storage if made and picked else info.storage)
    return found


def _are_parts(calls: Sequence[Call], rounding: Rounding) -> bool:
    seen: set[str] = set()
    for call in calls:
        weight = call.arg("weight") if call.op.name in _CONVS else None
        rounds = rounding.weight([weight]) if type(weight) is Ref else -1
        engines = _engines(rounding, rounds)
        if not engines or engines & seen:
            return False
        seen |= engines
    return len(calls) > 1


def _engines(rounding: Rounding, index: int) -> set[str]:
    if index < 0:
        return set()
    return {name.strip() for name in rounding.calls[index].arg("engines").split(",")} - {""}


def merged_ops(calls: Sequence[int], parts: Mapping[int, tuple[int, ...]]) -> list[int]:
    """Return which op each row is of, where parts of one are one, as late as its last.

    Args:
        calls: the call of each row.
        parts: calls that put parts together -> the parts' calls.
    """
    last = {call: max(group) for group in parts.values() for call in group}
    rows = {call: row for row, call in enumerate(calls)}
    target = [rows[last[call]] if call in last else row for row, call in enumerate(calls)]
    numbers = {row: number for number, row in enumerate(sorted(set(target)))}
    return [numbers[row] for row in target]


def whole_sizes(
    rows: Sequence[tuple[str, Mapping[str, float]]], ops: Sequence[int]
) -> list[dict[str, float]]:
    """Return the sizes of each row with the channels of all parts of its op.

    A depthwise part then has them all as inputs too, as it does when it is of one channel.
    """
    count, made, read = Counter(ops), [0.0] * len(ops), [0.0] * len(ops)
    for (_, sizes), op in zip(rows, ops, strict=True):
        made[op] += sizes.get("cout", 0.0)
        read[op] = max(read[op], sizes.get("cin", 0.0))
    found = []
    for (_, sizes), op in zip(rows, ops, strict=True):
        whole = dict(sizes)
        if count[op] > 1:
            whole["cout"] = made[op]
            if sizes["groups"] == sizes["cin"] < read[op]:
                whole |= {"cin": made[op], "groups": made[op]}
        found.append(whole)
    return found


def merged_buffers(buffers: Buffers, ops: Sequence[int]) -> Buffers:
    """Return buffers of a schedule of ops in place of rows.

    Args:
        ops: the op of each row.
    """
    if len(set(ops)) == len(ops):
        return buffers
    count = torch.bincount(torch.tensor(ops))
    # The results of the model live until after the last op; -1 is nobody.
    to = torch.tensor([*ops, len(count), -1])
    producer = to[buffers.producer]
    held = torch.zeros(len(count) + 1, dtype=torch.float64)
    held = held.index_add(0, producer.where(producer >= 0, len(count)), buffers.elements)
    parted = (producer >= 0) & (count[producer] > 1)
    share = buffers.share * buffers.elements / held[producer]
    return replace(
        buffers,
        producer=producer,
        first=to[buffers.first],
        last=to[buffers.last],
        reader=to[buffers.reader],
        share=torch.where(parted, share, buffers.share),
    )
