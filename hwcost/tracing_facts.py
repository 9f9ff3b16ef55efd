"""What the lifting of calls to rows knows about tensors, and the rows that it makes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hwcost.recorder_quantize import FAKE_QUANTIZE
from hwcost.recorder_values import Call, Recording, Ref, TensorInfo

#: Operators that change a shape and move nothing.
_RESHAPES = ("aten.view", "aten._unsafe_view", "aten.reshape")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the op table, before its weights are known as new or seen before.

    Attributes:
        kind: its kind of op.
        sizes: its sizes.
        out: numbers that it writes.
        weight: the weights that it reads, where its kind has such.
        bias: the bias.
        operands: constants among its inputs, beside weight and bias, that count as stored.
        experts: how many equal parts the weight has, of which each number reads one.
        part: which part of the call it is, where the call has several rows.
        after: rows of the same call whose output it reads; none: it reads the call's inputs.
        internal: whether its output goes nowhere but into the next row.
        fusable: whether it may overwrite an input that nobody else reads.
        more: further weights that it reads, as a recurrent layer does.
    """

    kind: str
    sizes: Mapping[str, float]
    out: int
    weight: Ref | None = None
    bias: Ref | None = None
    operands: tuple[Ref, ...] = ()
    experts: int = 1
    part: str = ""
    after: tuple[int, ...] = ()
    internal: bool = False
    fusable: bool = False
    more: tuple[Ref, ...] = ()


@dataclass(eq=False)
class Facts:
    """What is known about tensors while the calls are gone through in order.

    What does not depend on an input of the network is a constant: it is computed before
    inference and costs nothing then. So is a weight that a parametrization derives.

    Attributes:
        recording: the run.
        data: storages that depend on an input of the network.
        sources: storage -> the parameters that it holds or was computed from.
        unpadded: storage of a padded tensor -> the tensor before padding, where the operators
            that read it do the padding.
        rounded: storage of a rounded tensor -> the tensor that was rounded; see ``FAKE_QUANTIZE``.
    """

    recording: Recording
    data: set[int] = field(default_factory=set)
    sources: dict[int, frozenset[Ref]] = field(default_factory=dict)
    unpadded: dict[int, Ref] = field(default_factory=dict)
    rounded: dict[int, Ref] = field(default_factory=dict)

    def info(self, ref: Ref) -> TensorInfo:
        return self.recording.tensors[ref]

    def shape(self, ref: Ref) -> tuple[int, ...]:
        return self.recording.tensors[ref].shape

    def storage(self, ref: Ref) -> int:
        return self.recording.tensors[ref].storage

    def is_data(self, ref: Ref) -> bool:
        """Whether the tensor depends on an input of the network."""
        return self.recording.tensors[ref].storage in self.data

    def parameters_of(self, refs: Iterable[Ref]) -> frozenset[Ref]:
        """Return the parameters that the tensors are or were computed from."""
        none: frozenset[Ref] = frozenset()
        return none.union(*(self.sources.get(self.storage(r), none) for r in refs))

    def constants(self, row: Row) -> tuple[Ref, ...]:
        """Return the weights that a row reads, none if some depend on an input."""
        refs = (*(() if row.weight is None else (row.weight,)), *row.more)
        return () if any(map(self.is_data, refs)) else refs

    def before_padding(self, ref: Ref) -> Ref:
        """Return the tensor without the zeros that its reader itself adds."""
        return self.unpadded.get(self.storage(ref), ref)

    def unrounded(self, info: TensorInfo) -> tuple[int, int]:
        """Return the storage of a tensor before it was rounded, and its place in there."""
        storage, offset = info.storage, info.offset
        while storage in self.rounded:
            source = self.info(self.rounded[storage])
            storage, offset = source.storage, offset + source.offset
        return storage, offset

    def made_by(self, ref: Ref) -> int:
        """Return the index of the call that made the tensor, -1 for none; rounding is not one."""
        calls, index = self.recording.calls, self.info(ref).producer
        while index >= 0 and calls[index].op.name == FAKE_QUANTIZE:
            index = self.info(calls[index].args[0]).producer
        return index

    def producer(self, ref: Ref) -> Call | None:
        """Return the call that made the tensor; rounding is not one."""
        index = self.made_by(ref)
        return self.recording.calls[index] if index >= 0 else None

    def unflattened(self, ref: Ref) -> tuple[int, ...]:
        """Return the shape before a reshape to two dimensions, as in a linear layer on tokens."""
        shape = self.shape(ref)
        call = self.producer(ref)
        while len(shape) == 2 and call is not None and call.op.name in _RESHAPES:
            before = self.shape(call.args[0])
            if not before or before[-1] != shape[-1]:
                break
            shape, call = before, self.producer(call.args[0])
        return shape


def from_outside(recording: Recording, literals: bool) -> list[Ref]:
    """Return tensors that came in on a way that torch does not see, such as numpy.

    Only numbers can go that way, so on tensors without numbers there are none.

    Args:
        recording: the run.
        literals: with those made by ``torch.tensor`` or ``torch.from_numpy``; nearly always
            they are constants in the code.
    """
    return [
        ref
        for call in recording.calls
        for ref in call.inputs
        if recording.how == "real"
        and ref >= recording.given
        and recording.tensors[ref].producer < 0
        and ref not in recording.parameters
        and (literals or not call.op.name.startswith("aten.lift_fresh"))
    ]


def is_factory(call: Call) -> bool:
    """Whether the call only takes shape and type from its inputs."""
    name = call.op.name.rpartition(".")[2]
    return not call.op.random and (name.startswith("new_") or name.endswith("_like"))
