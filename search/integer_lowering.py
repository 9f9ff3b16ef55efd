"""From a recorded fake-quantized model to an integer program."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hwcost.errors import SearchError, TraceError
from hwcost.recorder import record
from hwcost.recorder_values import Call, Recording, Ref, without_compiler
from hwcost.search.integer_builder import Builder, placed
from hwcost.search.integer_moves import MOVING, grows
from hwcost.search.integer_pointwise import SINGLE, pointwise
from hwcost.search.integer_pools import POOLING
from hwcost.search.integer_rules import COMPUTING, Rule
from hwcost.search.integer_steps import Batch, Dequantize, Step, filled, invoke, plain_name
from hwcost.search.integer_values import Constant, Raw, Value

#: Operator -> rule.
RULES: dict[str, Rule] = {**COMPUTING, **MOVING, **POOLING, **SINGLE}


class Program(NamedTuple):
    """What an integer model does.

    Attributes:
        front: slot -> step, from the inputs to the first codes.
        middle: slot -> step, on whole numbers.
        back: slot -> step, from the last codes to the outputs.
        codes: slots of the outputs' codes.
        outputs: slots of the outputs.
        inputs: how many tensors the model takes.
        batch: the number of samples that it can take, None for any.
    """

    front: tuple[tuple[int, Step], ...]
    middle: tuple[tuple[int, Step], ...]
    back: tuple[tuple[int, Step], ...]
    codes: tuple[int, ...]
    outputs: tuple[int, ...]
    inputs: int
    batch: int | None


def lowered(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> tuple[Program, dict[str, Tensor]]:
    """Return the program of a fake-quantized model, and its buffers by name.

    Raises:
        SearchError: an operator has no integer form; it names operator and layer.
        TraceError: the model does not run on the example.
    """
    recording = record(model, args, kwargs)
    arguments, batch = _arguments(model, args, kwargs, recording)
    b = Builder(recording, arguments, _given(model, recording))
    stale: set[Ref] = set()
    for index, call in enumerate(recording.calls):
        b.layer = recording.scopes[call.scope].path if recording.scopes else ""
        if stale.intersection(call.inputs):
            why = "it reads a view of what has been overwritten since"
            results = [Value(why=_located(call, b.layer, why))]
        else:
            results = list(_results(b, index, call))
        stale |= _overwritten(recording, call)
        results += results[-1:] * len(call.outputs)
        b.values.update(zip(call.outputs, results, strict=False))
    if b.fixed:
        batch = recording.tensors[recording.inputs[0]].shape[0]
    return _finished(b, batch), b.buffers


def _given(model: nn.Module, recording: Recording) -> dict[Ref, Value]:
    """Return parameters, buffers and inputs."""
    given = {without_compiler(n): t.detach().cpu() for n, t in _tensors(model)}
    named = {**recording.parameters, **recording.buffers}
    values = {r: Value(constant=Constant(given[n])) for r, n in named.items() if n in given}
    raw = {
        ref: Value(raw=Raw(slot), why=_NOT_QUANTIZED) for slot, ref in enumerate(recording.inputs)
    }
    return values | raw


_NOT_QUANTIZED = "it reads the input before a quantizer"


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _results(b: Builder, index: int, call: Call) -> Sequence[Value]:
    name = plain_name(call.op)
    values = [b.value(ref) for ref in call.inputs]
    rule = RULES.get(name) or (pointwise if call.op.pointwise else None)
    try:
        own = name == "hwcost.fake_quantize" or name in MOVING
        if not own and all(v.constant is not None for v in values):
            b.fixed |= grows(b.arguments[index])
            return _folded(b, call)
        broken = next((v.why for v in values if _is_broken(v)), "")
        if broken:
            return [Value(why=broken)]
        if rule is None:
            raise SearchError("")
        return rule(b, index, call)
    except SearchError as error:
        return [Value(why=_located(call, b.layer, str(error)))]


def _is_broken(value: Value) -> bool:
    return all(f is None for f in (value.whole, value.curve, value.constant, value.raw))


def _located(call: Call, layer: str, why: str) -> str:
    if why.startswith("integer export"):
        return why
    what = call.op.name if call.op.name.startswith("aten.") else "a quantizer"
    said = f"integer export has no form of {what}, layer {layer!r}"
    return f"{said}: {why}" if why else said


def _folded(b: Builder, call: Call) -> Sequence[Value]:
    """Compute what is known before the program runs."""
    tensors = [c.value for c in (b.value(ref).constant for ref in call.inputs) if c is not None]
    args = placed(call.args, {ref: i for i, ref in enumerate(call.inputs)})
    out = invoke(call.op, filled(args, tensors, 1))
    out = [out] if isinstance(out, Tensor) else out
    return [Value(constant=Constant(t)) for t in out]


def _overwritten(recording: Recording, call: Call) -> set[Ref]:
    """Return views that a call makes stale: this program has no shared memory."""
    written = {call.arg(name) for name in call.op.writes}
    storages = {recording.tensors[ref].storage for ref in written if isinstance(ref, Ref)}
    if not storages:
        return set()
    before = range(min(call.outputs, default=0))
    return {Ref(i) for i in before if recording.tensors[i].storage in storages}


def _finished(b: Builder, batch: int | None) -> Program:
    codes, outputs = [], []
    for ref in b.recording.outputs:
        value = b.value(ref)
        b.layer = "output"
        try:
            whole = b.codes(value, "an output")
        except SearchError as error:
            raise SearchError(_said(str(error))) from None
        name = b.buffer("scale", whole.scale.float())
        codes.append(whole.slot)
        outputs.append(b.emit(Dequantize((whole.slot,), (name,), b.layer), b.back))
    front, middle, back = _needed(b, outputs)
    inputs = len(b.recording.inputs)
    return Program(front, middle, back, tuple(codes), tuple(outputs), inputs, batch)


def _said(why: str) -> str:
    if why.startswith("integer export"):
        return why
    return f"integer export: {why}"


def _needed(b: Builder, outputs: list[int]) -> list[tuple[tuple[int, Step], ...]]:
    """Return the steps that outputs follow from, and drop the other ones' buffers."""
    needed = set(outputs)
    for part in (b.back, b.middle, b.front):
        for slot in reversed(part):
            if slot in needed:
                needed.update(part[slot].inputs)
    parts = (b.front, b.middle, b.back)
    kept = [tuple((s, step) for s, step in part.items() if s in needed) for part in parts]
    names = {name for part in kept for _, step in part for name in step.buffers}
    b.buffers = {name: tensor for name, tensor in b.buffers.items() if name in names}
    return kept


def _arguments(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None, recording: Recording
) -> tuple[list[tuple[Any, ...]], int | None]:
    """Return every call's arguments with ``Batch`` for sizes that follow the batch.

    They are found with a second recording, of one more sample. Where that fails or the model
    does something else, the program is for the example's batch only, which is returned.
    """
    plain = [call.args for call in recording.calls]
    sizes = [recording.tensors[ref].shape for ref in recording.inputs]
    if not sizes or not sizes[0]:
        return plain, None
    batch = sizes[0][0]

    def longer(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != batch:
            return tensor
        return torch.cat([tensor, tensor[:1]])

    try:
        more = record(model, *tree_map_only(Tensor, longer, (tuple(args), dict(kwargs or {}))))
    except TraceError:
        return plain, batch
    if [c.op for c in more.calls] != [c.op for c in recording.calls]:
        return plain, batch
    try:
        both = zip(plain, (call.args for call in more.calls), strict=True)
        return [_followed(one, two, batch) for one, two in both], None
    except _Other:
        return plain, batch


class _Other(Exception):
    """An argument differs in a way that does not follow the batch."""


def _followed(one: Any, two: Any, batch: int) -> Any:
    if isinstance(one, (tuple, list)) and isinstance(two, (tuple, list)) and len(one) == len(two):
        return tuple(_followed(a, b, batch) for a, b in zip(one, two, strict=True))
    if type(one) is Ref or one == two:
        return one
    if type(one) is int and one % batch == 0 and two == one // batch * (batch + 1):
        return Batch(one // batch)
    raise _Other
