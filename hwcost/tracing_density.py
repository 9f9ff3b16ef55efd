"""What share of the weights that a row reads is not 0, by the model's own numbers.

A recording has no numbers. What it computes from constants (a mask times a parameter, weight
norm) is computed once more, on the parameters themselves.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hwcost.recorder_quantize import FAKE_QUANTIZE
from hwcost.recorder_values import Call, Recording, Ref, refs_in, tensors_in, without_compiler
from hwcost.tracing_names import plain_name


def densities(
    model: nn.Module,
    recording: Recording,
    calls: Sequence[int],
    weights: Sequence[tuple[Ref, ...]],
) -> list[float]:
    """Return the density of each row: 1 for one without weights, or whose numbers are not known.

    What rounding to few bits makes 0 is not among the zeros.

    Args:
        model: as it was when it ran.
        recording: that run.
        calls: index of each row's call.
        weights: the constants that each row multiplies by.
    """
    found = _Densities(model, recording)
    pairs = zip(weights, calls, strict=True)
    with torch.no_grad():
        return [found.of(refs, index) if refs else 1.0 for refs, index in pairs]


class _Unknown(Exception):
    """The numbers of a tensor are not known."""


class _Densities:
    def __init__(self, model: nn.Module, recording: Recording) -> None:
        self.model, self.recording = model, recording
        self.constants = _Constants(model, recording)
        self._known: dict[tuple[Any, ...], tuple[int, int] | None] = {}

    def of(self, refs: Sequence[Ref], reader: int) -> float:
        """Return the share of all tensors' numbers that is not 0."""
        counts = [self._counted(ref, reader) for ref in refs]
        known = [count for count in counts if count is not None]
        total = sum(numbers for _, numbers in known)
        if len(known) < len(counts) or not total:
            return 1.0
        return sum(nonzero for nonzero, _ in known) / total

    def _counted(self, ref: Ref, reader: int) -> tuple[int, int] | None:
        """Return how many numbers are not 0, and how many there are; None if nobody knows."""
        info = self.recording.tensors[ref]
        changes = self.constants.writers.get(info.storage)
        key = info.shape, info.stride, info.storage, info.offset, reader if changes else -1
        if key not in self._known:
            value = self._value(ref, reader)
            self._known[key] = None if value is None else _count(value)
        return self._known[key]

    def _value(self, ref: Ref, reader: int) -> Tensor | None:
        try:
            value = self.constants.value(ref, reader)
        except (_Unknown, RuntimeError, TypeError):  # the last two: torch's, of operators
            return self._of_module(ref)
        return value if _has_numbers(value) else None

    def _of_module(self, ref: Ref) -> Tensor | None:
        """Return a weight as its module gives it, where one only can be meant.

        So it is where a class computes it from tensors that are no parameters.
        """
        modules = dict(self.model.named_modules())
        found: list[Tensor] = []
        for name in {plain_name(name) for name in self.constants.parameters_of(ref)}:
            path, _, attribute = name.rpartition(".")
            value = getattr(modules.get(path), attribute, None)
            if isinstance(value, Tensor) and value.numel() == self.recording.tensors[ref].numel:
                found.append(value)
        return found[0] if len(found) == 1 and _has_numbers(found[0]) else None


class _Constants:
    """Computes the constants of a recording from the model's parameters and buffers.

    Attributes:
        writers: storage -> the calls that change what lies there, in order.
    """

    def __init__(self, model: nn.Module, recording: Recording) -> None:
        self.recording = recording
        self.given = _named(model, recording)
        self.writers: dict[int, list[int]] = {}
        for index, call in enumerate(recording.calls):
            for ref in refs_in([call.arg(name) for name in call.op.writes]):
                storage = recording.tensors[ref].storage
                self.writers.setdefault(storage, []).append(index)

    def value(self, ref: Ref, reader: int) -> Tensor:
        """Return the numbers of a constant as the call ``reader`` sees them.

        Raises:
            _Unknown: it is computed from tensors that are neither parameters nor buffers.
            RuntimeError, TypeError: an operator does not run.
        """
        values: dict[Ref, Tensor] = {}
        for index in sorted(self._ancestors(ref, reader)):
            call = self.recording.calls[index]
            for tensor in call.inputs:
                if tensor not in values:
                    values[tensor] = self._leaf(tensor)
            values.update(zip(call.outputs, self._computed(call, values), strict=True))
        return values[ref] if ref in values else self._leaf(ref)

    def parameters_of(self, ref: Ref) -> set[str]:
        """Return the names of the parameters that a constant is computed from."""
        known, recording = self.recording.parameters, self.recording
        calls = self._ancestors(ref, len(recording.calls))
        read = {ref, *(r for index in calls for r in recording.calls[index].inputs)}
        return {known[r] for r in read if known.get(r)}

    def _ancestors(self, ref: Ref, reader: int) -> set[int]:
        """Return the calls before ``reader`` that have a part in a constant."""
        found: set[int] = set()
        waiting = [ref]
        while waiting:
            new = {i for i in self._makers(waiting.pop()) if 0 <= i < reader} - found
            found |= new
            waiting += [r for i in new for r in self.recording.calls[i].inputs]
        return found

    def _makers(self, ref: Ref) -> Iterator[int]:
        info = self.recording.tensors[ref]
        yield info.producer
        yield from self.writers.get(info.storage, ())

    def _leaf(self, ref: Ref) -> Tensor:
        """Return a parameter or buffer, a copy where the run writes to it."""
        tensor = self.given.get(ref)
        if tensor is None:
            raise _Unknown
        return tensor.clone() if self.recording.tensors[ref].storage in self.writers else tensor

    def _computed(self, call: Call, values: dict[Ref, Tensor]) -> list[Tensor]:
        if call.op.name == FAKE_QUANTIZE:
            return [values[call.args[0]]]
        if call.op.random or call.op.name.startswith("higher_order."):
            raise _Unknown
        device = next((t.device for t in self.given.values()), torch.device("cpu"))

        def real(value: Any) -> Any:
            if type(value) is Ref:
                return values[value]
            return device if value == torch.device("meta") else value

        namespace, _, name = call.op.name.partition(".")
        operator = getattr(getattr(getattr(torch.ops, namespace), name), call.op.overload)
        pairs = list(zip(operator._schema.arguments, tree_map(real, call.args), strict=True))
        plain = [value for argument, value in pairs if not argument.kwarg_only]
        named = {argument.name: value for argument, value in pairs if argument.kwarg_only}
        return tensors_in(operator(*plain, **named))


def _named(model: nn.Module, recording: Recording) -> dict[Ref, Tensor]:
    """Return the parameters and buffers that a recording knows."""
    tensors: dict[str, Tensor] = {without_compiler(n): b for n, b in model.named_buffers()}
    tensors |= {without_compiler(n): p for n, p in model.named_parameters()}
    names = {**recording.buffers, **recording.parameters}
    return {ref: tensors[name] for ref, name in names.items() if name in tensors}


def _has_numbers(value: Tensor) -> bool:
    """Whether a tensor is an ordinary one: no subclass, no meta tensor, not sparse."""
    ordinary = type(value) in (Tensor, nn.Parameter)
    return ordinary and not value.is_meta and value.layout == torch.strided


#: Numbers that torch counts on one core: to wake more takes longer, the more so on a busy machine.
_SERIAL = 2**15


def _count(value: Tensor) -> tuple[int, int]:
    """Return how many numbers are not 0, and how many there are."""
    if value.dtype.itemsize == 1 and value.is_floating_point():
        value = value.to(torch.float16)  # torch does not count float8
    by_step = sorted(range(value.dim()), key=value.stride, reverse=True)
    numbers = value.permute(by_step).reshape(-1)
    parts = numbers.split(_SERIAL) if value.device.type == "cpu" else [numbers]
    return sum(int(torch.count_nonzero(part)) for part in parts), value.numel()
