"""The ops of a network, each as a function that runs it alone."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import torch

from hwcost.measure_calls import InTurn, ModuleCall, Replay, TorchCall
from hwcost.measure_subject import Arguments, Subject, module_inputs
from hwcost.ops import KINDS, defaults
from hwcost.recorder_values import Call, refs_in
from hwcost.tracing import Traced, rerun

#: Kinds of which a row may stand for several calls -> parts of the names of operators that are
#: all of one.
_WHOLE = {"attention": ("attention",), "rnn": ("lstm", "gru", "rnn")}

_PADDING = "aten.constant_pad_nd"

_SHARED = "its torch call is several rows, or a part of one"


@dataclass(frozen=True, eq=False)
class Op:
    """One row of a network's op table.

    Attributes:
        function: the operator, for people; sizes alone do not tell ReLU from GELU.
        sizes: those of its kind that are not the default.
        bits: of its weights and of its inputs.
        key: equal for ops that take equally long.
        replay: runs it alone; None where it cannot.
        why: why it cannot.
    """

    layer: str
    kind: str
    function: str
    sizes: Mapping[str, float]
    bits: tuple[int, int]
    key: Hashable
    replay: Replay | None
    why: str = ""

    @property
    def name(self) -> str:
        """What people call it."""
        return self.layer or self.function


def ops_of(subject: Subject) -> list[Op]:
    """Return the ops of a network in order, each as what it is in there.

    An op that is all that a module does runs as a call of this module, on the inputs that it
    has in the network; any other as a call of its operator, on numbers of the same shapes.

    Raises:
        TraceError: the network cannot be traced, or does not run.
    """
    traced = rerun(subject.model, subject.args, dict(subject.kwargs))
    run = _Run(subject, traced, module_inputs(subject, traced.recording))
    return [run.op(row) for row in range(len(traced.calls))]


class _Run:
    """A traced network, and what its modules were called with, by scope."""

    def __init__(self, subject: Subject, traced: Traced, inputs: Mapping[int, Arguments]) -> None:
        self.subject, self.traced, self.inputs = subject, traced, inputs
        self.calls = traced.recording.calls
        self.rows_of_call = Counter(traced.calls)
        self.rows_of_scope = Counter(self.calls[index].scope for index in traced.calls)

    def op(self, row: int) -> Op:
        table, kind = self.traced.workload, self.traced.workload.kinds[row]
        replay, why = self.replay(row)
        values = {name: float(table.column(name)[row]) for name in KINDS[kind].sizes}
        usual = defaults()
        sizes = {n: v for n, v in values.items() if not math.isnan(v) and usual.get(n) != v}
        own = (self.subject.name, row) if replay is None else self.likeness(row, replay)
        function = table.structure.functions[row]
        key = (kind, tuple(sizes.items()), own)
        bits = self.bits(self.calls[self.traced.calls[row]])
        return Op(table.layers[row], kind, function, sizes, bits, key, replay, why)

    def bits(self, call: Call) -> tuple[int, int]:
        """Return the bits of a call's last and first floats: weights follow the inputs."""
        types = [self.traced.recording.tensors[ref].dtype for ref in call.inputs]
        floats = [t for t in types if t.is_floating_point] or types or [torch.float32]
        return 8 * floats[-1].itemsize, 8 * floats[0].itemsize

    def likeness(self, row: int, replay: Replay) -> Hashable:
        """Return what, beside the sizes, is equal for ops that take equally long."""
        recording, call = self.traced.recording, self.calls[self.traced.calls[row]]
        layout = [recording.tensors[ref][:3] for ref in call.inputs]
        plain = [str(value) for value in call.args if not refs_in((value,))]
        return call.op.name, call.op.overload, tuple(layout), tuple(plain), str(replay)

    def replay(self, row: int) -> tuple[Replay | None, str]:
        """Return what runs a row alone, with the padding before it; or why nothing does."""
        index = self.traced.calls[row]
        if not self.is_module(index) and not self.is_call(row):
            return None, _SHARED
        made: list[Replay] = []
        for each in (*self.paddings(index), index):
            try:
                made.append(self.one(each))
            except Exception as error:  # whatever an operator raises
                name = self.calls[each].op.name
                said = " ".join(str(error).split())[:80] or type(error).__name__
                return None, f"{name} does not run alone: {said}"
        return made[0] if len(made) == 1 else InTurn(tuple(made)), ""

    def one(self, index: int) -> Replay:
        """Return what runs a call, run once."""
        call, recording = self.calls[index], self.traced.recording
        if self.is_module(index):
            scope = recording.scopes[call.scope]
            module = self.subject.model.get_submodule(scope.path)
            return ModuleCall(module, scope.call, *self.inputs[call.scope])
        replay = TorchCall(call, recording, self.subject.device)
        replay()
        return replay

    def is_module(self, index: int) -> bool:
        """Whether a call is all that a module without modules inside does, and one row at most."""
        scope = self.calls[index].scope
        return scope in self.inputs and self.rows_of_scope[scope] == self.rows_of_call[index] <= 1

    def is_call(self, row: int) -> bool:
        """Whether a row is all that its call is, and the call all that the row is."""
        index = self.traced.calls[row]
        names = _WHOLE.get(self.traced.workload.kinds[row], ("",))
        whole = any(name in self.calls[index].op.name for name in names)
        return whole and self.rows_of_call[index] == 1

    def paddings(self, index: int) -> list[int]:
        """Return the calls that pad what a call reads and that have no row, in order."""
        found: list[int] = []
        scope, tensors = self.calls[index].scope, self.traced.recording.tensors
        while self.calls[index].inputs:
            index = tensors[self.calls[index].inputs[0]].producer
            call = self.calls[index]
            counted = index < 0 or self.rows_of_call[index] or call.scope == scope
            if counted or call.op.name != _PADDING:
                break
            found.append(index)
        return found[::-1]
