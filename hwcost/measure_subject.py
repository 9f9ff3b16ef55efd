"""A network that is to be measured: ready to run, and run once to see its modules' inputs."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hwcost.errors import TraceError
from hwcost.recorder_state import set_mode, untouched
from hwcost.recorder_values import Recording, tensors_in
from hwcost.tracing import recorded

#: Positional and keyword arguments of a module.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network in evaluation mode with the inputs that it is measured on."""

    name: str
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    device: torch.device

    def __call__(self) -> object:
        """Run the network once."""
        return self.model(*self.args, **self.kwargs)


@contextmanager
def subject_of(
    name: str, model: nn.Module, example: Any, device: torch.device, batch: int = 1
) -> Iterator[Subject]:
    """Yield a model ready to run on a device, and leave its modes and hooks as they were.

    Zeros in the example become random numbers; a model stays on the device.

    Args:
        batch: how many samples; the example has one.

    Raises:
        TraceError: the model does not run on the example or has no numbers, or the example has
            another batch or none that fits into memory.
    """
    try:
        found = recorded(model, example)
    except TraceError as error:
        raise TraceError(f"{name}: {error}") from error.__cause__
    tensors = (*model.parameters(), *tensors_in((found.args, found.kwargs)))
    if any(tensor.is_meta for tensor in tensors):
        raise TraceError(f"{name}: it has shapes but no numbers, its device is 'meta'")

    def ready(tensor: Tensor) -> Tensor:
        tensor = _repeated(tensor, batch, name)
        if tensor.is_floating_point() and not tensor.any():
            tensor = torch.rand_like(tensor, memory_format=torch.preserve_format)
        return tensor.to(device)

    args, kwargs = tree_map_only(Tensor, ready, (found.args, found.kwargs))
    with untouched(model):
        set_mode(model.to(device), training=False)
        yield Subject(name, model, args, kwargs, device)


def _repeated(tensor: Tensor, batch: int, name: str) -> Tensor:
    if batch == 1:
        return tensor
    if tensor.dim() == 0 or tensor.shape[0] != 1:
        raise TraceError(
            f"{name}: an input has shape {tuple(tensor.shape)}; for a batch of {batch} its first"
            " size must be 1"
        )
    try:
        return tensor.repeat(batch, *(1,) * (tensor.dim() - 1))
    except RuntimeError:
        raise TraceError(f"{name}: a batch of {batch} does not fit into memory") from None


def module_inputs(subject: Subject, recording: Recording) -> dict[int, Arguments]:
    """Run the network; return scope -> the arguments of modules without modules inside.

    Raises:
        TraceError: the network raises.
    """
    places = {(s.path, s.call): i for i, s in enumerate(recording.scopes) if s.leaf}
    paths = {path for path, _ in places}
    found: dict[int, Arguments] = {}
    hooks = [
        module.register_forward_pre_hook(_keeper(path, places, found), with_kwargs=True)
        for path, module in subject.model.named_modules()
        if path in paths
    ]
    try:
        subject()
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise TraceError(f"{subject.name}: the model raised {said}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _keeper(
    path: str, places: Mapping[tuple[str, int], int], found: dict[int, Arguments]
) -> Callable[..., None]:
    """A hook that keeps the arguments of each call of the module at ``path``."""
    calls = Counter[str]()

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        place = places.get((path, calls[path]))
        calls[path] += 1
        if place is not None:
            found[place] = args, kwargs

    return keep
