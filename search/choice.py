"""A place in a network where one of several modules is chosen."""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.recorder_alternatives import alternatives


class Selector(Protocol):
    """Decides for a choice: weights for its branches, or one of them."""

    def weights(self) -> Tensor:
        """Return a weight for each branch, shape ``(branches,)``, in training."""
        ...

    def path(self) -> tuple[int, Tensor | None] | None:
        """Return the only branch to run and its weight, None where all run."""
        ...


class Choice(nn.Module):
    """Several modules of which a ``SuperNet`` search keeps one.

    Outside a search the output is the mean of the branches' outputs.

    Args:
        branches: modules that take the same arguments and return tensors of equal shape.
        shared: choices with the same name here take the same decision.

    Raises:
        SearchError: there are no branches, or one is no module.
    """

    def __init__(self, branches: Iterable[nn.Module], *, shared: str | None = None) -> None:
        super().__init__()
        modules = list(branches)
        for number, module in enumerate(modules):
            if not isinstance(module, nn.Module):
                found = type(module).__name__
                raise SearchError(f"branch {number} of a choice is no module but {found}")
        if not modules:
            raise SearchError("a choice needs at least one branch")
        self.branches = nn.ModuleList(modules)
        self.shared = shared
        self.selector: Selector | None = None
        self.traced = False

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mix of the branches' outputs, or that of the chosen one."""
        if self.traced:
            return self._all(args, kwargs)
        path = None if self.selector is None else self.selector.path()
        if path is not None:
            number, weight = path
            out: Tensor = self.branches[number](*args, **kwargs)
            return out if weight is None else out * weight.to(out.dtype)
        outputs = [branch(*args, **kwargs) for branch in self.branches]
        if self.selector is None:
            mean: Tensor = sum(outputs[1:], outputs[0]) / len(outputs)
            return mean
        return mix(self.selector.weights(), outputs)

    def _all(self, args: Any, kwargs: Any) -> Tensor:
        """Run every branch so that a trace sees them all; check that they fit."""
        outputs = [branch(*args, **kwargs) for branch in self.branches]
        for number, out in enumerate(outputs):
            if not isinstance(out, Tensor):
                raise SearchError(f"branch {number} returns no tensor but {type(out).__name__}")
            if out.shape != outputs[0].shape:
                first, other = tuple(outputs[0].shape), tuple(out.shape)
                name = type(self.branches[number]).__name__
                raise SearchError(
                    f"branch {number} ({name}) returns shape {other}; branch 0 returns {first}"
                )
        chosen: Tensor = alternatives(outputs)
        return chosen

    def extra_repr(self) -> str:
        """Return what is shared, for ``repr``."""
        return "" if self.shared is None else f"shared={self.shared!r}"


def mix(weights: Tensor, outputs: list[Tensor]) -> Tensor:
    """Return the sum of outputs times weights; keeps nothing for backward but the outputs."""
    return _Mix.apply(weights.to(outputs[0].dtype), *outputs)  # type: ignore[no-any-return,no-untyped-call]


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, *outputs: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *outputs)
        total = outputs[0] * weights[0]
        for weight, output in zip(weights[1:], outputs[1:], strict=True):
            total = total.addcmul_(output, weight)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, *outputs = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        seen = None
        if wanted[0]:
            flat = grad.reshape(-1)
            seen = torch.stack([flat.dot(output.reshape(-1)) for output in outputs])
        through = [grad * w if want else None for w, want in zip(weights, wanted[1:], strict=True)]
        return seen, *through


#: The names that users of other tools bring along.
SuperNetModule = Choice
PITSuperNetModule = Choice
