"""Bits of rows, and a layer at several precisions or on several engines as several rows."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hwcost.recorder_values import Call, Recording, Ref, TensorInfo
from hwcost.tracing_bits import Quantizers, Rounding
from hwcost.tracing_facts import Facts, Row


class Part(NamedTuple):
    """Output channels of a layer at the same bits on the same engine.

    Attributes:
        bits: of their weights, None where these are not rounded.
        engine: its name, None where any may run them.
        channels: how many of the layer's; ``of``: how many it has.
    """

    bits: float | None = None
    engine: str | None = None
    channels: int = 1
    of: int = 1


#: A layer whose weights are not rounded.
_WHOLE = (Part(),)


class Precisions:
    """The bits of rows while they are made."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.rounding = Rounding(facts.recording)

    def quantizers(self, row: Row, inputs: Iterable[Ref], made: Iterable[Ref]) -> Quantizers:
        """Return which calls round what a row reads and makes.

        Args:
            row: the row.
            inputs: the tensors that its call reads, in order.
            made: those that the row itself makes, none where it passes them on.
        """
        if not self.rounding.behind:
            return Quantizers()
        inputs = list(inputs)
        data = [ref for ref in inputs if self.facts.is_data(ref)]
        constants = [ref for ref in row.operands if not self.facts.is_data(ref)]
        return Quantizers(
            weight=self.rounding.weight(constants if row.weight is None else [row.weight]),
            read=self.rounding.read_by(data or inputs),
            made=self.rounding.read_by(made),
        )

    def sizes(self, found: Quantizers) -> dict[str, float]:
        """Return the columns of bits that are known."""
        names = {"w_bits": found.weight, "a_bits": found.read, "o_bits": found.made}
        bits = {name: self.rounding.bits(index) for name, index in names.items()}
        return {name: value for name, value in bits.items() if value is not None}

    def parts(self, row: Row, call: Call, found: Quantizers) -> Sequence[Part]:
        """Return the parts of a row's output channels, by rising bits, then by engine."""
        if found.weight < 0:
            return _WHOLE
        if row.weight is None or row.kind == "rnn":
            return [Part(self.rounding.bits(found.weight))]
        recording = self.facts.recording
        known = _known(recording.calls[found.weight])
        if len(set(known)) > 1:
            channels = _channels(recording, found.weight, row, call)
            if not channels:
                return [Part(self.rounding.bits(found.weight))]
            known = [known[c] for c in channels]
        return [
            Part(bits, engine or None, known.count((bits, engine)), len(known))
            for bits, engine in sorted(set(known))
        ]


def part_sizes(kind: str, sizes: dict[str, float], part: Part) -> dict[str, float]:
    """Return the sizes of a part of a layer's channels.

    In a depthwise convolution its input channels are a part too; in any other layer, all.
    """
    found = sizes if part.bits is None else {**sizes, "w_bits": part.bits}
    if part.channels == part.of:
        return found
    channels = ["cout"]
    if kind != "linear" and 1 < sizes["groups"] == sizes["cin"]:
        channels += ["cin", "groups"]
    return found | {name: sizes[name] * part.channels / part.of for name in channels}


def _known(call: Call) -> list[tuple[float, str]]:
    """Return bits and engine of each channel of a rounded weight, of all where they are equal."""
    bits, engines = call.arg("bits"), call.arg("engines").split(",")
    count = max(len(bits), len(engines))
    return [(float(bits[c % len(bits)]), engines[c % len(engines)].strip()) for c in range(count)]


def _channels(recording: Recording, rounding: int, row: Row, call: Call) -> list[int]:
    """Return which channel of the rounded weight each output channel of a layer is.

    Followed by the place in memory of each channel's first number; empty where this fails.
    """
    assert row.weight is not None
    tensors = recording.tensors
    info, rounded = tensors[row.weight], tensors[recording.calls[rounding].outputs[0]]
    places = _first_places(info, row, call)
    while places and info.storage != rounded.storage:
        copy = _copy_at(recording, info.storage)
        if copy is None:
            return []
        info, source = tensors[copy.outputs[0]], tensors[copy.args[0]]
        places = [_place(place - info.offset, info, source) for place in places]
        info = source
    axis = recording.calls[rounding].arg("axis")
    return [_index(place - rounded.offset, rounded, axis) for place in places]


def _first_places(info: TensorInfo, row: Row, call: Call) -> list[int]:
    """Return where in memory the first number of each output channel is; see ``_output_dim``."""
    dim, groups = _output_dim(row, call)
    if not info.stride or info.shape[dim] * groups != row.sizes["cout"]:
        return []
    step = info.shape[0] // groups * info.stride[0] if groups > 1 else 0
    return [
        info.offset + group * step + channel * info.stride[dim]
        for group in range(groups)
        for channel in range(info.shape[dim])
    ]


#: Names of the first factor of a product that adds a bias named ``self``.
_FIRST_FACTORS = ("mat1", "mat", "batch1")


def _output_dim(row: Row, call: Call) -> tuple[int, int]:
    """Return a weight's dimension of output channels, and how many groups dimension 0 holds."""
    if call.arg("transposed"):
        return 1, call.arg("groups")
    if call.op.name in ("aten.convolution", "aten._convolution", "aten.linear", "aten.bilinear"):
        return 0, 1
    names = call.op.names
    first = next(call.arg(name) for name in (*_FIRST_FACTORS, "self") if name in names)
    return (-2 if first == row.weight else -1), int(row.sizes.get("groups", 1))


def _copy_at(recording: Recording, storage: int) -> Call | None:
    """Return the call that filled a memory with a copy of another tensor."""
    index = next(t.producer for t in recording.tensors if t.storage == storage)
    call = recording.calls[index]
    copies = ("aten.clone", "aten._to_copy", "aten.contiguous")
    return call if index >= 0 and call.op.name in copies else None


def _place(place: int, info: TensorInfo, source: TensorInfo) -> int:
    """Return where in ``source`` the number at a place of its copy ``info`` is."""
    steps = enumerate(source.stride)
    return source.offset + sum(_index(place, info, dim) * step for dim, step in steps)


def _index(place: int, info: TensorInfo, dim: int) -> int:
    """Return the index along a dimension of the number at a place in a dense tensor."""
    return place // max(info.stride[dim], 1) % info.shape[dim]
