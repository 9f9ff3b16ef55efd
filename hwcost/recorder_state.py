"""Run a model on stand-ins for its tensors and leave it exactly as it was."""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

#: Containers whose contents are put back. Others are the business of whoever made them.
_CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)

Convert = Callable[[Tensor], Tensor]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back every module's attributes, whatever the body does to them, also when it raises.

    Attributes are compared by identity; lists, dicts and sets that are attributes (parameters,
    buffers, children and hooks among them) get their contents back, one level deep.
    """
    plain = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    scripted = [m for m in model.modules() if isinstance(m, torch.jit.ScriptModule)]
    attributes = [(m, dict(m.__dict__)) for m in plain]
    contents = [(c, c.copy()) for _, a in attributes for c in a.values() if type(c) in _CONTAINERS]
    training = [getattr(m, "training", False) for m in scripted]
    try:
        yield
    finally:
        for module, saved in attributes:
            module.__dict__.clear()
            module.__dict__.update(saved)
        for container, saved in contents:
            _refill(container, saved)
        for module, flag in zip(scripted, training, strict=True):
            _set_training(module, flag)


def _refill(container: Any, saved: Any) -> None:
    if not container and not saved:
        return
    container.clear()
    if isinstance(container, (list, deque)):
        container.extend(saved)
    else:
        container.update(saved)


def _set_training(module: nn.Module, flag: bool) -> None:
    if getattr(module, "training", flag) != flag:
        module.training = flag


def set_mode(model: nn.Module, training: bool) -> None:
    """Set the training flags: of the user's own modules as asked, cleared in all others.

    ``model.eval()`` is the user's method and may do more: LoRA layers merge their weights.
    """
    for module in model.modules():
        flag = training and not type(module).__module__.startswith(("torch.", "hwcost."))
        if isinstance(module, torch.jit.ScriptModule):
            _set_training(module, flag)
        else:
            module.__dict__["training"] = flag


def substitute(model: nn.Module, convert: Convert) -> None:
    """Replace the tensors of all modules: parameters, buffers, attributes, those in containers.

    Scripted modules keep theirs: they lie out of reach.
    """
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name, value in list(module.__dict__.items()):
            if isinstance(value, Tensor):
                module.__dict__[name] = convert(value)
            elif name in ("_parameters", "_buffers"):
                for key, tensor in value.items():
                    if tensor is not None:
                        value[key] = convert(tensor)
            elif type(value) in (list, tuple) and any(isinstance(v, Tensor) for v in value):
                new = [convert(v) if isinstance(v, Tensor) else v for v in value]
                module.__dict__[name] = type(value)(new)
            elif type(value) is dict and any(isinstance(v, Tensor) for v in value.values()):
                module.__dict__[name] = {
                    k: convert(v) if isinstance(v, Tensor) else v for k, v in value.items()
                }


class Converter:
    """Convert tensors, each object once: what was one tensor stays one."""

    def __init__(self, convert: Convert) -> None:
        self._convert = convert
        self._done: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        done = self._done.get(id(tensor))
        if done is None:
            done = self._done[id(tensor)] = (tensor, self._convert(tensor))
        return done[1]

    @property
    def results(self) -> list[Tensor]:
        """What tensors were converted to."""
        return [new for _, new in self._done.values()]

    def knows(self, tensor: Tensor) -> bool:
        """Whether this tensor was converted."""
        return id(tensor) in self._done


def to_meta(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape, strides and type that has no memory."""
    if tensor.layout == torch.strided and type(tensor) in (Tensor, nn.Parameter):
        size, stride = tensor.shape, tensor.stride()  # empty_like is slow for what is meta already
        return _like(tensor, torch.empty_strided(size, stride, dtype=tensor.dtype, device="meta"))
    return _like(tensor, torch.empty_like(tensor, device="meta", requires_grad=False))


def to_clone(tensor: Tensor) -> Tensor:
    """Return a copy that shares nothing with ``tensor``."""
    return _like(tensor, tensor.detach().clone())


def _like(tensor: Tensor, new: Tensor) -> Tensor:
    if not isinstance(tensor, nn.Parameter):
        return new
    parameter = nn.Parameter(new, requires_grad=tensor.requires_grad)
    if tensor.__dict__:
        parameter.__dict__.update(tensor.__dict__)
    return parameter
