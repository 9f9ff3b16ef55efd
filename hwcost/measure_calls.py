"""Ops that run again: a call of a module, or a recorded torch call on made-up numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.recorder_values import Call, Recording, Ref, TensorInfo

#: Called without arguments, it runs an op once.
Replay = Callable[[], object]


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """A module on the inputs that it has in its network.

    Attributes:
        number: how many times it was called before, in one run of the network.
    """

    module: nn.Module
    number: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self) -> object:
        return self.module(*self.args, **self.kwargs)

    def __str__(self) -> str:
        return type(self.module).__name__


class TorchCall:
    """A recorded call on tensors of the shapes that it had.

    Floats are from 0.5 to 1, whole numbers are 0, which points into any table.

    Raises:
        AttributeError, RuntimeError: torch has no such operator, or cannot make its arguments.
    """

    def __init__(self, call: Call, recording: Recording, device: torch.device) -> None:
        namespace, _, name = call.op.name.partition(".")
        operator = getattr(getattr(torch.ops, namespace), name)
        self.operator = getattr(operator, call.op.overload)
        self.name = f"{name}.{call.op.overload}"
        made = {ref: _tensor(recording.tensors[ref], device) for ref in call.inputs}
        arguments = self.operator._schema.arguments
        values = [_real(value, made, device) for value in call.args]
        pairs = list(zip(values, arguments, strict=True))
        self.args = [value for value, argument in pairs if not argument.kwarg_only]
        self.kwargs = {a.name: v for v, a in pairs if a.kwarg_only and v is not None}

    def __call__(self) -> object:
        return self.operator(*self.args, **self.kwargs)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class InTurn:
    """Several calls, one after another."""

    parts: tuple[Replay, ...]

    def __call__(self) -> object:
        for part in self.parts:
            part()
        return None

    def __str__(self) -> str:
        return " ".join(map(str, self.parts))


def modules_of(replay: Replay) -> tuple[ModuleCall, ...]:
    """Return the modules that a replay calls in turn, none where some of it is no module."""
    parts = replay.parts if isinstance(replay, InTurn) else (replay,)
    modules = tuple(part for part in parts if isinstance(part, ModuleCall))
    return modules if len(modules) == len(parts) else ()


def _real(value: Any, made: Mapping[Ref, Tensor], device: torch.device) -> Any:
    if type(value) is Ref:
        return made[value]
    if isinstance(value, tuple):
        return [_real(v, made, device) for v in value]
    return device if isinstance(value, torch.device) else value


def _tensor(info: TensorInfo, device: torch.device) -> Tensor:
    if not info.stride:
        return _numbers(torch.empty(info.shape, dtype=info.dtype, device=device))
    # A dimension that is expanded has one number, and cannot be written to.
    once = [n if step else 1 for n, step in zip(info.shape, info.stride, strict=True)]
    made = torch.empty_strided(once, info.stride, dtype=info.dtype, device=device)
    return _numbers(made).expand(info.shape)


def _numbers(tensor: Tensor) -> Tensor:
    return tensor.uniform_(0.5, 1) if tensor.is_floating_point() else tensor.zero_()
