"""Evaluate a model, with hooks, and leave it as it was."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.recorder_state import set_mode, untouched

#: Called with the number of a call of a module and what it returned; returns what to go on with.
See = Callable[[int, Tensor], Tensor]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Let the model be in evaluation mode in the body, and afterwards as it was.

    Modes, attributes, hooks and the contents of buffers come back, also when the body raises.
    """
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(untouched(model))
        set_mode(model, training=False)
        torch.backends.mha.set_fastpath_enabled(False)  # it passes modules by
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for buffer, saved in buffers:
                if not torch.equal(buffer, saved):
                    buffer.copy_(saved)


@contextmanager
def seeing(watched: Sequence[tuple[nn.Module, See]]) -> Iterator[None]:
    """Let functions see, and replace, what modules return in the body.

    Where a module returns several things, the first tensor among them is what is seen.
    """
    handles = [module.register_forward_hook(_hook(see)) for module, see in watched]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(see: See) -> Callable[[nn.Module, Any, Any], Any]:
    calls = 0

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        return replaced(output, see(calls - 1, first_tensor(output, module)))

    return hook


def first_tensor(output: Any, module: nn.Module) -> Tensor:
    """Return the output of a module, or the first tensor in it."""
    inside = output.values() if isinstance(output, dict) else output
    found = [output] if isinstance(output, Tensor) else [v for v in inside if _is_tensor(v)]
    if not found:
        raise SearchError(f"{type(module).__name__} returns no tensor; it has no units")
    return found[0]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def replaced(output: Any, new: Tensor) -> Any:
    """Return what a module returned with another first tensor."""
    if isinstance(output, Tensor):
        return new
    keys = list(output) if isinstance(output, dict) else range(len(output))
    at = next(key for key in keys if isinstance(output[key], Tensor))
    if isinstance(output, dict):
        return type(output)({**output, at: new})
    items = [new if i == at else item for i, item in enumerate(output)]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
